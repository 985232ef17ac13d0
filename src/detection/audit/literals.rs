//! Searches text for a set of literals.

use aho_corasick::{AhoCorasick, MatchKind, packed};

/// A searcher for a set of literals. Uses vector instructions where the machine has them: for literals with a common prefix, `aho_corasick`
/// by default uses an automaton, which is several times slower.
#[derive(Clone, Debug)]
pub enum Literals {
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

impl Literals {
    /// A searcher for these literals. If several match at the same position, the first of them wins. `None` if there are no literals
    /// or one is empty.
    pub fn new<L: AsRef<[u8]>>(literals: &[L]) -> Option<Self> {
        if literals.is_empty() || literals.iter().any(|literal| literal.as_ref().is_empty()) {
            return None;
        }
        if let Some(searcher) = packed::Searcher::new(literals) {
            return Some(Literals::Packed(searcher));
        }
        AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(literals)
            .ok()
            .map(Literals::Automaton)
    }

    /// The position of the first match at or after `from`, and the index of the literal.
    #[inline]
    pub fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let found = match self {
            Literals::Packed(searcher) => searcher.find_in(text, (from..text.len()).into()),
            Literals::Automaton(automaton) => automaton.find(aho_corasick::Input::new(text).range(from..)),
        };
        found.map(|found| (found.start(), found.pattern().as_usize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_searchers_agree_with_a_naive_one(text in "[ab\\\\]{0,80}", literals in proptest::collection::vec("[ab\\\\]{1,4}", 1..6)) {
            let plain = (0..text.len()).find_map(|at| {
                literals.iter().position(|literal| text[at..].starts_with(literal.as_str())).map(|which| (at, which))
            });
            prop_assert_eq!(Literals::new(&literals).unwrap().find(text.as_bytes(), 0), plain);
            let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&literals).unwrap();
            prop_assert_eq!(Literals::Automaton(automaton).find(text.as_bytes(), 0), plain);
        }
    }
}
