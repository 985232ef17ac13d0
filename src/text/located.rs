//! Text that knows which bytes of which file it came from, also when it was put together from several.

use std::ops::Range;

use super::diagnostics::Span;
use super::yaml::Node;

/// A text from rule files.
#[derive(Clone, Debug, Default)]
pub struct Located {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    /// Where it starts in the text.
    start: usize,
    file: usize,
    /// For each byte, and the end, its place in the file.
    origins: Vec<usize>,
    /// The node as a whole.
    range: Range<usize>,
}

impl Located {
    /// The text of a scalar.
    pub fn new(node: &Node, file: usize, file_text: &str) -> Self {
        let text = node.text().unwrap_or_default().to_owned();
        let piece = Piece { start: 0, file, origins: node.origins(file_text), range: node.range.clone() };
        Located { text, pieces: vec![piece] }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends another text after a blank.
    pub fn append(&mut self, other: &Located) {
        self.text.push(' ');
        let start = self.text.len();
        self.text.push_str(&other.text);
        self.pieces
            .extend(other.pieces.iter().map(|piece| Piece { start: piece.start + start, ..piece.clone() }));
    }

    /// Where a range of the text stands. One that spans several pieces is cut at the first one's end.
    pub fn span(&self, range: &Range<usize>) -> Span {
        let index = self.pieces.partition_point(|piece| piece.start <= range.start).saturating_sub(1);
        let Some(piece) = self.pieces.get(index) else { return Span { file: 0, range: 0..0 } };
        let place = |at: usize| {
            let at = at.saturating_sub(piece.start);
            piece.origins.get(at).or(piece.origins.last()).copied().unwrap_or(piece.range.start)
        };
        let start = place(range.start);
        // The end is where the last byte stands, plus its length: what follows may be on another line.
        let end = if range.end > range.start { place(range.end - 1) + 1 } else { start };
        Span { file: piece.file, range: start..end.max(start) }
    }

    /// Where all of it stands; of several pieces the first.
    pub fn whole(&self) -> Span {
        match self.pieces.first() {
            Some(piece) => Span { file: piece.file, range: piece.range.clone() },
            None => Span { file: 0, range: 0..0 },
        }
    }
}
