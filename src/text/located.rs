//! Text with the position of each byte in the files that it came from.
//!
//! Takes scalars of YAML files; returns their text, also concatenated from several files (a condition that is appended to), and the
//! span in a file for any range of it.

use std::ops::Range;

use super::diagnostics::Span;
use super::yaml::Node;

/// Text from one or more scalars.
#[derive(Clone, Debug, Default)]
pub struct Located {
    text: String,
    pieces: Vec<TextPiece>,
}

#[derive(Clone, Debug)]
struct TextPiece {
    /// Offset in the concatenated text.
    start: usize,
    file: usize,
    /// The position in the file of each byte of the piece, and of its end.
    origins: Vec<usize>,
    /// The range of the whole scalar in the file.
    range: Range<usize>,
}

impl Located {
    /// The text of a scalar.
    pub fn new(node: &Node, file: usize, file_text: &str) -> Self {
        let text = node.text().unwrap_or_default().to_owned();
        let piece = TextPiece { start: 0, file, origins: node.origins(file_text), range: node.range.clone() };
        Located { text, pieces: vec![piece] }
    }

    /// The concatenated text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends another text, separated by a space.
    pub fn append(&mut self, other: &Located) {
        self.text.push(' ');
        let start = self.text.len();
        self.text.push_str(&other.text);
        self.pieces.extend(
            other.pieces.iter().map(|piece| TextPiece { start: piece.start + start, ..piece.clone() }),
        );
    }

    /// The span in a file of a range of the text. A range over several pieces is limited to the first of them.
    pub fn span(&self, range: &Range<usize>) -> Span {
        let index = self.pieces.partition_point(|piece| piece.start <= range.start).saturating_sub(1);
        let Some(piece) = self.pieces.get(index) else { return Span { file: 0, range: 0..0 } };
        let place = |at: usize| {
            let at = at.saturating_sub(piece.start);
            piece.origins.get(at).or(piece.origins.last()).copied().unwrap_or(piece.range.start)
        };
        let start = place(range.start);
        // The end is the position of the last byte plus one, because the next byte may be on another line.
        let end = if range.end > range.start { place(range.end - 1) + 1 } else { start };
        Span { file: piece.file, range: start..end.max(start) }
    }

    /// The span of the whole first piece.
    pub fn whole(&self) -> Span {
        match self.pieces.first() {
            Some(piece) => Span { file: piece.file, range: piece.range.clone() },
            None => Span { file: 0, range: 0..0 },
        }
    }
}
