//! Candidates first: lines that no rule can match are not read at all.
//!
//! A rule that wants `ka.target.name contains "registry"` can only match a line with `registry` in it, and
//! finding a few literals takes a tenth of the time of reading JSON. Where every rule needs some literal, only
//! lines with one of them are read (the way of ripgrep: find a candidate, then confirm).
//!
//! JSON can spell a character as an escape, so that a line may say `registry` without holding these bytes. The
//! escapes that could spell a character of a literal are searched for as well; a line with one is a candidate.

use super::compare::{Compare, TextTest, Texts};
use super::plan::{Node, OperandPlan, Plan, With};
use crate::detection::audit::literals::Literals;
use crate::detection::registry;

/// Finds candidates.
#[derive(Debug, Clone)]
pub struct Prefilter {
    literals: Literals,
}

/// More literals than this make the search slower than reading.
const MOST_LITERALS: usize = 24;

/// Shorter literals are in too many lines.
const SHORTEST: usize = 4;

/// What stands in most lines anyway.
const COMMON: [&str; 8] = [
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
    /// The prefilter of a plan, where each rule needs a literal that is rare enough.
    pub fn new(plan: &Plan) -> Option<Self> {
        let mut literals: Vec<Vec<u8>> = Vec::new();
        for rule in &plan.rules {
            literals.extend(needs(plan, &rule.condition)?.literals);
        }
        if plan.needs_cluster_state {
            literals.extend(registry::STATE_LITERALS.iter().map(|literal| literal.as_bytes().to_vec()));
        }
        let escapes: Vec<Vec<u8>> = literals.iter().flatten().flat_map(|&byte| escapes(byte)).collect();
        literals.extend(escapes);
        literals.sort_unstable();
        literals.dedup();
        if literals.len() > MOST_LITERALS {
            return None;
        }
        Literals::new(&literals).map(|literals| Prefilter { literals })
    }

    /// Index of the next place, at or behind `from`, that makes its line a candidate.
    #[inline]
    pub fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        self.literals.find(bytes, from).map(|(at, _)| at)
    }
}

/// How JSON can spell an ASCII character other than as itself. Uppercase and lowercase hex digits both.
fn escapes(byte: u8) -> Vec<Vec<u8>> {
    if byte == b'"' {
        // A quote of the literal is JSON's own, never part of a string.
        return Vec::new();
    }
    let (high, low) = (byte >> 4, byte & 15);
    let digit = |digit: u8| char::from_digit(u32::from(digit), 16).unwrap_or('0');
    let mut spellings = vec![format!("\\u00{}{}", digit(high), digit(low))];
    if low >= 10 {
        spellings.push(format!("\\u00{}{}", digit(high), digit(low).to_ascii_uppercase()));
    }
    if byte.is_ascii_alphabetic() {
        // Letters: one prefix for the whole row keeps the set small, and nobody escapes letters in earnest.
        spellings = vec![format!("\\u00{}", digit(high))];
    }
    if byte == b'/' {
        spellings.push("\\/".to_owned());
    }
    spellings.into_iter().map(String::into_bytes).collect()
}

/// Literals of which a line must hold at least one for the condition to hold. Nothing where no such set is
/// known.
fn needs(plan: &Plan, node: &Node) -> Option<Need> {
    match node {
        Node::Known(false) => Some(Need { literals: Vec::new(), is_common: false }),
        Node::Known(true) | Node::Not(_) => None,
        Node::All(nodes) => nodes.iter().filter_map(|node| needs(plan, node)).max_by_key(Need::worth),
        Node::Any(nodes) => {
            let mut all = Need { literals: Vec::new(), is_common: false };
            for node in nodes {
                let need = needs(plan, node)?;
                all.literals.extend(need.literals);
                all.is_common |= need.is_common;
            }
            Some(all)
        }
        Node::Check(check) => {
            let check = &plan.checks[*check];
            let OperandPlan::Field(access) = &plan.operands[check.left] else { return None };
            let With::Constant(compare) = &check.with else { return None };
            if !access.is_verbatim() {
                return None;
            }
            let literals: Vec<Vec<u8>> = match compare {
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
            // The values of an event's head stand in many events.
            let is_common = check.is_head;
            literals.iter().all(|literal| is_rare(literal)).then_some(Need { literals, is_common })
        }
    }
}

/// Literals of which a matching line holds at least one.
struct Need {
    literals: Vec<Vec<u8>>,
    is_common: bool,
}

impl Need {
    /// A set is worth as much as its weakest literal.
    fn worth(&self) -> (bool, usize) {
        (!self.is_common, self.literals.iter().map(Vec::len).min().unwrap_or(usize::MAX))
    }
}

fn is_rare(literal: &[u8]) -> bool {
    let inner: &[u8] =
        literal.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(literal);
    inner.len() >= SHORTEST && !COMMON.iter().any(|common| common.as_bytes() == inner)
}

/// The literal for a value that must be `text` as a whole: in quotes, if only a JSON string can read so.
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

/// The longest part of a text that JSON spells in one way, escapes apart.
fn longest_run(text: &[u8]) -> Vec<u8> {
    text.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')))
        .max_by_key(|run| run.len())
        .unwrap_or_default()
        .to_vec()
}
