//! A reference implementation of the engine, in the simplest way.
//!
//! [`check`] derives a rule and an event from arbitrary bytes, evaluates the event with the engine (prefilter, head, residual
//! conditions, shared comparisons, events read no further than needed) and with a few lines over `serde_json`, and asserts equal
//! results. A property test and a fuzz target use it.

use std::fmt::Write as _;
use std::sync::Arc;

use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::ast::{
    Comparison, Expr, FieldArgument, Operand, Operator, Quantifier, Right, Transformer,
};
use pullwatch::internals::detection::rules::fields::Source;
use pullwatch::internals::detection::rules::{self, SourceFile};
use serde_json::Value;

/// Derives choices from bytes; after the last byte, the first option.
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn number(&mut self, below: usize) -> usize {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                usize::from(first) % below
            }
            None => 0,
        }
    }

    fn of<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.number(from.len())]
    }
}

const TEXTS: [&str; 14] = [
    "get",
    "list",
    "secrets",
    "pods",
    "registry-1",
    "registry",
    "a",
    "",
    "42",
    "true",
    "ResponseComplete",
    "reg/istry",
    "REGISTRY",
    "null",
];
const FIELDS: [&str; 12] = [
    "ka.verb",
    "ka.stage",
    "ka.target.resource",
    "ka.target.name",
    "ka.target.subresource",
    "ka.user.name",
    "ka.response.code",
    "jevt.value[/verb]",
    "jevt.value[/objectRef/name]",
    "jevt.value[/requestObject/data/x]",
    "ka.auth.decision",
    "jevt.value[/level]",
];
const LISTS: [&str; 3] = ["ka.user.groups", "ka.sourceips", "ka.req.role.rules"];

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn list(choices: &mut Choices<'_>) -> String {
    let count = choices.number(4);
    let values: Vec<String> = (0..count).map(|_| quoted(choices.of(&TEXTS))).collect();
    format!("({})", values.join(", "))
}

fn comparison(choices: &mut Choices<'_>) -> String {
    let field = choices.of(&FIELDS);
    match choices.number(10) {
        0 => format!("{field} exists"),
        1 | 2 => format!("{field} in {}", list(choices)),
        3 => format!("{} {} {}", choices.of(&LISTS), choices.of(&["in", "intersects"]), list(choices)),
        4 => format!(
            "{}({field}) = {}",
            choices.of(&["tolower", "toupper", "basename"]),
            quoted(choices.of(&TEXTS))
        ),
        5 => format!("len({field}) {} {}", choices.of(&["<", ">=", "="]), choices.number(9)),
        6 => format!("{field} = val({})", choices.of(&FIELDS)),
        7 => format!(
            "{field} {} {} {}",
            choices.of(&["=", "startswith", "contains"]),
            choices.of(&["anyof", "allof", "oneof"]),
            list(choices)
        ),
        _ => {
            let operator =
                choices.of(&["=", "!=", "contains", "icontains", "startswith", "endswith", "glob"]);
            format!("{field} {operator} {}", quoted(choices.of(&TEXTS)))
        }
    }
}

fn condition(choices: &mut Choices<'_>, depth: usize) -> String {
    match choices.number(if depth > 3 { 2 } else { 6 }) {
        0 | 1 => comparison(choices),
        2 => format!("not ({})", condition(choices, depth + 1)),
        3 => format!("({} or {})", condition(choices, depth + 1), condition(choices, depth + 1)),
        _ => format!("({} and {})", condition(choices, depth + 1), condition(choices, depth + 1)),
    }
}

/// Returns a JSON string with some characters escaped.
fn string(choices: &mut Choices<'_>, text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match choices.number(16) {
            1 => write!(out, "\\u{:04x}", u32::from(letter)).unwrap(),
            2 => write!(out, "\\u{:04X}", u32::from(letter)).unwrap(),
            3 if letter == '/' => out.push_str("\\/"),
            _ => out.push(letter),
        }
    }
    out + "\""
}

fn value(choices: &mut Choices<'_>) -> String {
    match choices.number(8) {
        0 => "null".to_owned(),
        1 => choices.of(&["42", "true", "-1.5e3"]).to_owned(),
        // The engine compares objects by their source text, whose escapes serde_json does not keep.
        2 => format!("{{\"x\": {}}}", quoted(choices.of(&TEXTS))),
        _ => string_of(choices),
    }
}

fn string_of(choices: &mut Choices<'_>) -> String {
    let text = choices.of(&TEXTS);
    string(choices, text)
}

fn object(choices: &mut Choices<'_>, members: &[(&str, String)]) -> String {
    let blank = choices.of(&["", "", " "]);
    let mut members: Vec<String> = members
        .iter()
        .map(|(key, value)| format!("{}{blank}:{blank}{value}", string(choices, key)))
        .collect();
    // Shuffle the members.
    let turn = choices.number(members.len().max(1));
    members.rotate_left(if choices.number(3) == 0 { turn } else { 0 });
    format!("{{{blank}{}{blank}}}", members.join(&format!("{blank},{blank}")))
}

fn some<'t>(
    choices: &mut Choices<'_>,
    keys: &[&'t str],
    value: impl Fn(&mut Choices<'_>) -> String,
) -> Vec<(&'t str, String)> {
    let mut members = Vec::new();
    for key in keys {
        if choices.number(4) > 0 {
            members.push((*key, value(choices)));
        }
    }
    members
}

fn event(choices: &mut Choices<'_>) -> String {
    let mut members = vec![("kind", "\"Event\"".to_owned()), ("auditID", "\"a\"".to_owned())];
    members.extend(some(choices, &["stage", "verb"], value));
    let user = some(choices, &["username"], value);
    let groups: Vec<String> = (0..choices.number(3)).map(|_| value(choices)).collect();
    let user = [user, vec![("groups", format!("[{}]", groups.join(",")))]].concat();
    members.push(("user", object(choices, &user)));
    let reference = some(choices, &["resource", "namespace", "name", "subresource"], value);
    members.push(("objectRef", object(choices, &reference)));
    let status = some(choices, &["code"], value);
    members.push(("responseStatus", object(choices, &status)));
    if choices.number(2) == 1 {
        let data = some(choices, &["x"], value);
        let data = object(choices, &data);
        members.push((
            "requestObject",
            object(choices, &[("data", data), ("rules", "[{\"a\": 1}, []]".to_owned())]),
        ));
    }
    members.push(("annotations", object(choices, &[("authorization.k8s.io/decision", "\"a\"".to_owned())])));
    object(choices, &members)
}

/// Asserts that engine and reference agree on the rule and event derived from the bytes.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let condition = condition(&mut choices, 0);
    let event = event(&mut choices);
    let text = format!("- rule: r\n  desc: d\n  condition: '{condition}'\n  output: x\n  priority: INFO\n");
    let file = SourceFile { name: Arc::from("r.yaml"), text };
    let loaded = rules::load(&[file], &rules::Options::default());
    assert!(!loaded.has_errors(), "{condition}: {:?}", loaded.diagnostics);

    let detector = Detector::new(&loaded.rules, Options::default());
    let mut fired = 0;
    detector.session().chunk(event.as_bytes(), &mut |_| fired += 1);
    let parsed: Value = serde_json::from_str(&event).unwrap();
    let expected = holds(&loaded.rules.rules[0].condition, &parsed);
    assert_eq!(fired == 1, expected, "condition: {condition}\nevent: {event}");
}

fn holds(expr: &Expr, event: &Value) -> bool {
    match expr {
        Expr::And(parts) => parts.iter().all(|part| holds(part, event)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, event)),
        Expr::Not(inner) => !holds(inner, event),
        Expr::Macro { body, .. } | Expr::Exception { body, .. } => holds(body, event),
        Expr::Comparison(comparison) => passes(comparison, event),
    }
}

/// A value: missing, strings, or a number (of `len`).
enum Read {
    Texts(Vec<String>),
    Number(i64),
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // serde_json spells all generated numbers as they are, except this one.
        Value::Number(number) if number.as_f64() == Some(-1500.0) => "-1.5e3".to_owned(),
        other => other.to_string(),
    }
}

fn read(operand: &Operand, event: &Value) -> Option<Read> {
    match operand {
        Operand::Text(text) => Some(Read::Texts(vec![text.clone()])),
        Operand::Field(field) => match (field.field.source, &field.argument) {
            (Source::Path(keys), _) => {
                let value = keys.iter().try_fold(event, |value, key| value.get(key))?;
                // An empty member of the object is an absent one.
                let is_absent = keys[0] == "objectRef" && (value.as_str() == Some("") || value.is_null());
                (!is_absent).then(|| Read::Texts(vec![plain(value)]))
            }
            (Source::Elements(keys), _) => {
                let value = keys.iter().try_fold(event, |value, key| value.get(key))?.as_array()?;
                (!value.is_empty()).then(|| Read::Texts(value.iter().map(plain).collect()))
            }
            (Source::Pointer, Some(FieldArgument::Key(key))) => {
                Some(Read::Texts(vec![plain(event.pointer(key)?)]))
            }
            _ => unreachable!("not generated"),
        },
        Operand::Call { transformer, arguments, .. } => {
            let Read::Texts(texts) = read(&arguments[0], event)? else { return None };
            let text = &texts[0];
            Some(match transformer {
                Transformer::ToLower => Read::Texts(vec![text.to_ascii_lowercase()]),
                Transformer::ToUpper => Read::Texts(vec![text.to_ascii_uppercase()]),
                Transformer::Basename => Read::Texts(vec![text.rsplit('/').next().unwrap().to_owned()]),
                Transformer::Len => Read::Number(i64::try_from(text.len()).unwrap()),
                _ => unreachable!("not generated"),
            })
        }
    }
}

fn passes(comparison: &Comparison, event: &Value) -> bool {
    let Some(left) = read(&comparison.left, event) else { return false };
    let texts = match left {
        Read::Texts(texts) => texts,
        Read::Number(number) => {
            let Right::Text(bound) = &comparison.right else { unreachable!("not generated") };
            let bound: i64 = bound.parse().unwrap();
            return match comparison.operator {
                Operator::Less => number < bound,
                Operator::GreaterOrEqual => number >= bound,
                Operator::Equal => number == bound,
                _ => unreachable!("not generated"),
            };
        }
    };
    let one = |operator: Operator, value: &str| {
        let text = texts[0].as_str();
        match operator {
            Operator::Equal => text == value,
            Operator::NotEqual => text != value,
            Operator::Contains => text.contains(value),
            Operator::IContains => text.to_ascii_lowercase().contains(&value.to_ascii_lowercase()),
            Operator::StartsWith => text.starts_with(value),
            Operator::EndsWith => text.ends_with(value),
            // No generated string contains a special character.
            Operator::Glob => text == value,
            _ => unreachable!("not generated"),
        }
    };
    match (&comparison.right, comparison.operator, comparison.quantifier) {
        (Right::Nothing, ..) => true,
        (Right::Text(value), operator, None) => one(operator, value),
        (Right::Operand(operand), operator, None) => match read(operand, event) {
            Some(Read::Texts(right)) => one(operator, &right[0]),
            _ => false,
        },
        (Right::List(values), Operator::In, None) => texts.iter().all(|text| values.contains(text)),
        (Right::List(values), Operator::Intersects, None) => texts.iter().any(|text| values.contains(text)),
        (Right::List(values), operator, Some(quantifier)) => {
            let count = values.iter().filter(|value| one(operator, value)).count();
            match quantifier {
                Quantifier::AnyOf => count > 0,
                Quantifier::AllOf => count == values.len(),
                Quantifier::OneOf => count == 1,
            }
        }
        _ => unreachable!("not generated"),
    }
}
