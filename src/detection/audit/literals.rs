//! Searching text for any of a few literals.

use aho_corasick::{AhoCorasick, MatchKind, packed};

/// Finds literals: with vector instructions where the machine has them (the packed searcher is several times faster
/// than the automaton, which would otherwise be chosen for literals that start alike).
#[derive(Clone, Debug)]
pub enum Literals {
    /// Vector instructions.
    Packed(packed::Searcher),
    /// An automaton.
    Automaton(AhoCorasick),
}

impl Literals {
    /// A searcher for these; where several start at the same place, the first counts. Nothing where there is none, or
    /// an empty one.
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

    /// Where the next literal starts at or behind `from`, and which it is.
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
        fn both_searchers_agree_with_a_plain_one(text in "[ab\\\\]{0,80}", literals in proptest::collection::vec("[ab\\\\]{1,4}", 1..6)) {
            let plain = (0..text.len()).find_map(|at| {
                literals.iter().position(|literal| text[at..].starts_with(literal.as_str())).map(|which| (at, which))
            });
            prop_assert_eq!(Literals::new(&literals).unwrap().find(text.as_bytes(), 0), plain);
            let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&literals).unwrap();
            prop_assert_eq!(Literals::Automaton(automaton).find(text.as_bytes(), 0), plain);
        }
    }
}
