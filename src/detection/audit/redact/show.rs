//! Paths that a rule exempts from redaction with its key `show`.
//!
//! Takes the items of `show`, returns a [`ShowList`] that a [`Redactor`](super::Redactor) follows through an event.

use crate::detection::audit::json::Pointer;

/// Maximum number of paths of a rule, one bit each.
pub const MAX_SHOW_PATHS: usize = 32;

/// Maximum number of tokens of a path.
const MAX_TOKENS: usize = 64;

/// Values that a rule exempts from redaction: at JSON pointers, including everything below them, and query parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowList {
    /// `*` matches every key and index.
    paths: Vec<Vec<Box<str>>>,
    pub(super) parameters: Vec<String>,
}

impl ShowList {
    /// Shows nothing.
    pub const EMPTY: ShowList = ShowList { paths: Vec::new(), parameters: Vec::new() };

    /// Whether nothing is exempt from redaction.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.parameters.is_empty()
    }

    /// Adds an item: a JSON pointer (RFC 6901) into the event, with `*` for any key or index, or `ka.uri.param[NAME]`.
    ///
    /// # Errors
    ///
    /// If the item is neither: what is expected instead.
    pub fn add(&mut self, item: &str) -> Result<(), &'static str> {
        if let Some(name) = item.strip_prefix("ka.uri.param[").and_then(|rest| rest.strip_suffix(']')) {
            self.parameters.push(name.to_owned());
            return Ok(());
        }
        let pointer = Pointer::new(item);
        if !item.starts_with('/') || item.len() < 2 {
            return Err(
                "expected a JSON pointer such as /requestObject/spec/source, or ka.uri.param[command]",
            );
        }
        if self.paths.len() == MAX_SHOW_PATHS || pointer.tokens().len() > MAX_TOKENS {
            return Err("expected at most 32 paths of 64 keys each");
        }
        self.paths.push(pointer.tokens().to_vec());
        Ok(())
    }

    /// Returns the bits of all paths.
    pub(super) fn all_candidates(&self) -> u32 {
        u32::try_from((1_u64 << self.paths.len()) - 1).unwrap_or(u32::MAX)
    }

    /// Returns the candidates whose token at this depth matches, and whether one of them ends there.
    pub(super) fn advance(&self, candidates: u32, depth: usize, token: &[u8]) -> (u32, bool) {
        let (mut matching, mut ends) = (0, false);
        if candidates == 0 {
            return (0, false);
        }
        for (i, path) in self.paths.iter().enumerate().filter(|(i, _)| candidates >> i & 1 == 1) {
            let Some(expected) = path.get(depth) else { continue };
            if **expected == *"*" || expected.as_bytes() == token {
                matching |= 1 << i;
                ends |= path.len() == depth + 1;
            }
        }
        (matching, ends)
    }
}
