//! Literal prefilter: finds the lines that a rule can match at all.
//!
//! Takes a [`Plan`] and a buffer, returns positions in candidate lines. A rule with `ka.target.name contains "registry"` can only match a
//! line that contains `registry`, and searching for a few literals takes a tenth of the time of parsing JSON. If every rule requires a
//! literal, only lines with one of them are parsed (as in ripgrep: find a candidate, then confirm).
//!
//! A rule that the head of an event does not decide may require a literal as well; [`Guards`] check for it, which avoids reading the event.
//!
//! JSON can spell a character as an escape, so a line may contain `registry` without these bytes. Escapes of the characters of literals are
//! searched for as well, and a line with one is a candidate. A line that could match must never be skipped.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::compare::{Compare, TextTest, Texts};
use super::plan::{Basis, ConditionPlan, OperandPlan, Plan, RightPlan};
use crate::detection::audit::literals::Literals;
use crate::detection::registry;
use crate::detection::rules::fields::Registry;

/// Searcher for candidate lines.
#[derive(Debug, Clone)]
pub struct Prefilter {
    literals: Literals,
}

/// With more literals, the search is slower than parsing.
const MAX_LITERALS: usize = 24;

/// Shorter literals occur in too many lines.
const MIN_LITERAL_LEN: usize = 4;

/// Literals that occur in most events and are therefore useless for skipping lines.
const COMMON_LITERALS: [&str; 8] = [
    "ResponseComplete",
    "RequestReceived",
    "ResponseStarted",
    "Metadata",
    "RequestResponse",
    "allow",
    "system:",
    "system:authenticated",
];

impl Prefilter {
    /// Creates the prefilter of a plan; `None` unless each rule requires a literal that is rare enough.
    pub fn new(plan: &Plan) -> Option<Self> {
        let mut literals: Vec<Vec<u8>> = Vec::new();
        for rule in &plan.rules {
            literals.extend(required_literals(plan, &rule.condition)?.literals);
        }
        if plan.needs_cluster_state {
            literals.extend(registry::STATE_LITERALS.iter().map(|literal| literal.as_bytes().to_vec()));
        }
        let escapes: Vec<Vec<u8>> = literals.iter().flatten().flat_map(|&byte| escapes(byte)).collect();
        literals.extend(escapes);
        literals.sort_unstable();
        literals.dedup();
        if literals.len() > MAX_LITERALS {
            return None;
        }
        Literals::new(&literals).map(|literals| Prefilter { literals })
    }

    /// Returns the first position at or after `from` that makes its line a candidate.
    #[inline]
    pub fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        self.literals.find(bytes, from).map(|(at, _)| at)
    }
}

/// For each rule of a plan, a test of an event's text that excludes most events that the rule does not match, without parsing them.
#[derive(Debug)]
pub struct Guards(Box<[Option<Guard>]>);

impl Guards {
    /// Creates the guards of a plan. Many rules have none.
    pub fn new(plan: &Plan) -> Self {
        Guards(plan.rules.iter().map(|rule| Guard::new(plan, &rule.condition)).collect())
    }

    /// The guards applied to the text of one event.
    #[inline]
    pub fn over<'g>(&'g self, text: &'g [u8]) -> GuardedText<'g> {
        GuardedText { guards: self, text, has_escaped_letters: None }
    }

    #[cfg(test)]
    pub fn none() -> Self {
        Guards(Box::default())
    }
}

/// The text of an event, and whether it has escapes that may spell a part of a literal, once that is known.
#[derive(Debug)]
pub struct GuardedText<'g> {
    guards: &'g Guards,
    text: &'g [u8],
    has_escaped_letters: Option<bool>,
}

impl GuardedText<'_> {
    /// Whether a rule, by its index in the plan, can match an event with this text.
    #[inline]
    pub fn admits(&mut self, rule: usize) -> bool {
        let Some(guard) = self.guards.0.get(rule).and_then(Option::as_ref) else { return true };
        guard.is_met_by(self.text)
            || *self.has_escaped_letters.get_or_insert_with(|| ESCAPED_LETTER.find(self.text).is_some())
    }
}

/// How JSON escapes a character that a literal of a guard consists of: see [`longest_run`]. JSON inside of a JSON string has two backslashes
/// in its place, of which the second is found.
static ESCAPED_LETTER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br"\u"));

/// Literals of which the text of an event contains at least one if a rule matches it.
#[derive(Debug)]
struct Guard(Box<[Finder<'static>]>);

impl Guard {
    /// With more literals, the search takes as long as reading the event.
    const MAX_LITERALS: usize = 2;

    /// Creates the guard of a condition; `None` if no sufficiently rare literals are known.
    fn new(plan: &Plan, condition: &ConditionPlan) -> Option<Self> {
        let required = required_literals(plan, condition).filter(|required| !required.is_common)?;
        // One by one: for so few literals, that is several times faster than searching for all at once.
        let finders = required.literals.iter().map(|literal| Finder::new(literal).into_owned());
        (1..=Self::MAX_LITERALS).contains(&required.literals.len()).then(|| Guard(finders.collect()))
    }

    #[inline]
    fn is_met_by(&self, text: &[u8]) -> bool {
        self.0.iter().any(|finder| finder.find(text).is_some())
    }
}

/// Returns the escapes by which JSON can spell an ASCII character, with upper and lower case hexadecimal digits.
fn escapes(byte: u8) -> Vec<Vec<u8>> {
    if byte == b'"' {
        // A quote in a literal delimits the JSON string and is never part of it.
        return Vec::new();
    }
    let (high, low) = (byte >> 4, byte & 15);
    let digit = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap_or('0');
    let mut spellings = vec![format!("\\u00{}{}", digit(high), digit(low))];
    if low >= 10 {
        spellings.push(format!("\\u00{}{}", digit(high), digit(low).to_ascii_uppercase()));
    }
    if byte.is_ascii_alphabetic() {
        // One prefix for 16 letters keeps the set small. In practice, letters are hardly ever escaped.
        spellings = vec![format!("\\u00{}", digit(high))];
    }
    if byte == b'/' {
        spellings.push("\\/".to_owned());
    }
    spellings.into_iter().map(String::into_bytes).collect()
}

/// Returns literals of which a line must contain at least one for the condition to hold; `None` if no such set is known.
fn required_literals(plan: &Plan, node: &ConditionPlan) -> Option<RequiredLiterals> {
    match node {
        ConditionPlan::Constant(false) => Some(RequiredLiterals { literals: Vec::new(), is_common: false }),
        ConditionPlan::Constant(true) | ConditionPlan::Not(_) => None,
        ConditionPlan::All(nodes) => nodes
            .iter()
            .filter_map(|node| required_literals(plan, node))
            .max_by_key(RequiredLiterals::selectivity),
        ConditionPlan::Any(nodes) => {
            let mut all = RequiredLiterals { literals: Vec::new(), is_common: false };
            for node in nodes {
                let need = required_literals(plan, node)?;
                all.literals.extend(need.literals);
                all.is_common |= need.is_common;
            }
            Some(all)
        }
        ConditionPlan::Comparison(comparison) => {
            let comparison = &plan.comparisons[*comparison];
            let RightPlan::Constant(compare) = &comparison.right else { return None };
            let access = match &plan.operands[comparison.left] {
                OperandPlan::Field(access) => access,
                // Events that name a credential contain these letters in a member name.
                OperandPlan::Registry(Registry::Named) if matches!(compare, Compare::Exists) => {
                    let literals = vec![registry::NAMED_LITERAL.as_bytes().to_vec()];
                    return Some(RequiredLiterals { literals, is_common: false });
                }
                _ => return None,
            };
            if access.is_anomaly() && is_positive(compare) {
                // Lines of such events are never skipped, whatever they contain.
                return Some(RequiredLiterals { literals: Vec::new(), is_common: false });
            }
            if !access.is_verbatim() {
                return None;
            }
            let literals: Vec<Vec<u8>> = match compare {
                // Annotation keys are qualified by a domain; other keys, such as `name`, occur in most events.
                Compare::Exists => {
                    let key = access.last_key().filter(|key| key.contains('.'))?;
                    vec![longest_run(key.as_bytes())]
                }
                Compare::Text(TextTest::Equal(text)) => vec![whole(text)],
                Compare::Text(TextTest::Contains(finder)) => vec![longest_run(finder.needle())],
                Compare::Text(TextTest::StartsWith(text) | TextTest::EndsWith(text)) => {
                    vec![longest_run(text)]
                }
                Compare::In(Texts::Few(texts)) | Compare::Intersects(Texts::Few(texts)) => {
                    texts.iter().map(|text| whole(text)).collect()
                }
                _ => return None,
            };
            // Many events have the same values in their first members, so these literals exclude few lines.
            let is_common = matches!(comparison.basis, Basis::Stage | Basis::Head);
            literals
                .iter()
                .all(|literal| is_rare(literal))
                .then_some(RequiredLiterals { literals, is_common })
        }
    }
}

/// Whether a comparison only holds for events with an anomaly: `audit.target_missing` is `true`, or `audit.oversized` names a member.
fn is_positive(compare: &Compare) -> bool {
    match compare {
        Compare::Text(TextTest::Equal(text)) => **text != *b"false",
        Compare::Intersects(Texts::Few(texts)) | Compare::In(Texts::Few(texts)) => {
            texts.iter().all(|text| **text != *b"false")
        }
        _ => false,
    }
}

/// A set of literals of which each matching line contains at least one.
struct RequiredLiterals {
    literals: Vec<Vec<u8>>,
    is_common: bool,
}

impl RequiredLiterals {
    /// The selectivity of a set is that of its shortest literal.
    fn selectivity(&self) -> (bool, usize) {
        (!self.is_common, self.literals.iter().map(Vec::len).min().unwrap_or(usize::MAX))
    }
}

fn is_rare(literal: &[u8]) -> bool {
    let inner: &[u8] =
        literal.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(literal);
    inner.len() >= MIN_LITERAL_LEN && !COMMON_LITERALS.iter().any(|common| common.as_bytes() == inner)
}

/// Returns the literal for a value that must equal `text`, including the quotes if only a JSON string can have this value.
fn whole(text: &[u8]) -> Vec<u8> {
    let run = longest_run(text);
    let is_string = !matches!(text.first(), None | Some(b'0'..=b'9' | b'-' | b'{' | b'['))
        && !matches!(text, b"true" | b"false" | b"null");
    if is_string && run.len() == text.len() {
        let mut quoted = vec![b'"'];
        quoted.extend_from_slice(text);
        quoted.push(b'"');
        return quoted;
    }
    run
}

/// Returns the longest part of a text that has only one spelling in JSON, apart from escapes.
fn longest_run(text: &[u8]) -> Vec<u8> {
    text.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')))
        .max_by_key(|run| run.len())
        .unwrap_or_default()
        .to_vec()
}
