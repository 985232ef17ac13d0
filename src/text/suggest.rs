//! Suggestions for misspelled words.
//!
//! Takes a word and the known ones; returns the most similar, if one is similar enough.

/// Longer words get no suggestion, in bytes: the time needed for the distance grows with the product of both lengths.
const MAX_WORD_LEN: usize = 128;

/// Minimum similarity of a suggestion, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.6;

/// The candidate most similar to a word, by Damerau-Levenshtein distance; `None` if the similarity is below [`MIN_SIMILARITY`].
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD_LEN {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_WORD_LEN)
        .map(|candidate| (candidate, strsim::normalized_damerau_levenshtein(word, candidate)))
        .filter(|(_, similarity)| *similarity >= MIN_SIMILARITY)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate)
}

/// The [closest] candidate as a question: "did you mean …?".
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}
