//! Lines that a container runtime split into several records.
//!
//! Takes the pieces of lines in the order of the log; returns whole lines. Runtimes split a line every 16 KiB. containerd and CRI-O mark
//! pieces (`P`, and `F` for the last), docker ends the last one with a newline, and shippers preserve or drop these marks. A piece that
//! continues a line must never be read as a record of its own: a client can place any text at its start.
//!
//! If pieces are not marked, the JSON grammar decides: a piece is treated as the continuation of a split event unless that is impossible.
//! State is bounded by [`MAX_OPEN_LINES`] and the limit of one record.

use super::super::json::Raw;
use super::super::json_prefix::JsonPrefix;
use super::context::Context;
use super::prefix;
use super::shape::{PLAIN_START, Shape, Slot};

/// The length at which container runtimes split a line, in bytes.
const SPLIT_SIZE: usize = 16 * 1024;

/// Maximum number of open lines, one per stream.
const MAX_OPEN_LINES: usize = 64;

/// What is known about the end of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceEnd {
    /// The line ends with this piece.
    Final,
    /// The line continues in the next piece of the stream.
    Continued,
    Unknown,
}

/// A piece of a line, or a complete line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a [u8],
    pub(super) end: PieceEnd,
}

impl<'a> Piece<'a> {
    /// The piece in a shipper's record, determined by its marks and its text.
    pub(super) fn of_record(shape: &Shape<'_>, text: &'a [u8]) -> Self {
        let is_true = |mark: Option<Raw<'_>>| mark.is_some_and(|mark| *mark.text() == *b"true");
        let end = match shape.get(Slot::LogTag).map(Raw::text).as_deref().and_then(<[u8]>::first) {
            Some(b'P') => PieceEnd::Continued,
            Some(b'F') => PieceEnd::Final,
            _ if is_true(shape.get(Slot::PartialLast)) => PieceEnd::Final,
            _ if is_true(shape.get(Slot::Partial)) => PieceEnd::Continued,
            // The journal also splits lines.
            _ if shape.get(Slot::LineBreak).is_some_and(|mark| *mark.text() == *b"line-max") => {
                PieceEnd::Continued
            }
            _ if text.ends_with(b"\n") => PieceEnd::Final,
            _ if text.len() >= SPLIT_SIZE && !(is_json(text) && Raw::first(text).is_ok()) => {
                PieceEnd::Continued
            }
            _ => PieceEnd::Unknown,
        };
        Piece { text, end }
    }
}

impl<'a> Piece<'a> {
    /// The text after a header. Syslog senders split long lines without marking the pieces.
    pub(super) fn after_prefix(text: &'a [u8]) -> Self {
        Piece { text, end: PieceEnd::Unknown }
    }
}

/// A line of a container log in the format of the Container Runtime Interface: `<time> <stream> <tags> <content>`.
#[derive(Clone, Copy, Debug)]
pub(super) struct CriLine<'a> {
    pub(super) stream: &'a [u8],
    pub(super) time: &'a [u8],
    pub(super) piece: Piece<'a>,
}

impl<'a> CriLine<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        if !line.first()?.is_ascii_digit() {
            return None;
        }
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags, content) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let end = match tags.split(|byte| *byte == b':').next()? {
            b"P" => PieceEnd::Continued,
            b"F" => PieceEnd::Final,
            _ => return None,
        };
        let is_cri = time.get(10) == Some(&b'T') && matches!(stream, b"stdout" | b"stderr");
        is_cri.then_some(CriLine { stream, time, piece: Piece { text: content, end } })
    }
}

/// A line whose last piece was not read yet.
#[derive(Clone, Debug)]
struct OpenLine {
    stream: Vec<u8>,
    text: Vec<u8>,
    /// The positions in the text at which pieces start.
    starts: Vec<usize>,
    /// The JSON state of the text, if it is JSON.
    json: Option<JsonPrefix>,
    /// The runtime marked a piece as continued, so pieces are never separate records.
    is_marked: bool,
    /// The line exceeded the limit. The part within the limit was returned; the rest is dropped.
    is_oversized: bool,
    /// The context of the first piece.
    context: Context,
}

/// A joined line, or the available part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) context: Context,
}

/// What to evaluate after a piece was added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JoinResult {
    /// Nothing yet.
    Incomplete,
    /// The piece itself: it is a complete line.
    Piece,
    /// These lines.
    Lines(Vec<Line>),
    /// These lines, then the piece itself.
    LinesAndPiece(Vec<Line>),
}

/// The open lines of all streams of a log, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenLines {
    lines: Vec<OpenLine>,
    /// Pieces that turned out to be neither a continuation nor an event.
    pub(super) dropped_pieces: u64,
}

impl OpenLines {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| &line.stream[..])
    }

    pub(super) fn contains(&self, stream: &[u8]) -> bool {
        self.streams().any(|open| open == stream)
    }

    /// Adds a piece. `stream` returns the name of the stream, and is only called if it is needed.
    pub(super) fn push(
        &mut self,
        stream: impl Fn() -> Vec<u8>,
        piece: Piece<'_>,
        context: &Context,
        limit: usize,
    ) -> JoinResult {
        if self.lines.is_empty() && is_whole(piece) {
            return JoinResult::Piece;
        }
        let stream = stream();
        let Some(at) = self.lines.iter().position(|line| line.stream == stream) else {
            return self.open(stream, piece, context, limit);
        };
        let line = &mut self.lines[at];
        if line.json.is_some_and(|json| !json.can_continue_with(piece.text)) {
            // The rest of the open line is missing.
            let mut lines = self.remove(at);
            return match self.open(stream, piece, context, limit) {
                JoinResult::Piece => JoinResult::LinesAndPiece(lines),
                JoinResult::Lines(more) => {
                    lines.extend(more);
                    JoinResult::Lines(lines)
                }
                _ => JoinResult::Lines(lines),
            };
        }
        let closed = line.json.as_mut().and_then(|json| json.push(piece.text)).is_some();
        line.is_marked |= piece.end == PieceEnd::Continued;
        let is_complete = piece.end == PieceEnd::Final || closed && piece.end == PieceEnd::Unknown;
        let mut lines = Vec::new();
        if !line.is_oversized {
            line.starts.push(line.text.len());
            let room = limit.saturating_sub(line.text.len());
            line.text.extend_from_slice(&piece.text[..piece.text.len().min(room)]);
            if piece.text.len() > room && !is_complete {
                line.is_oversized = true;
                lines.push(Line { text: std::mem::take(&mut line.text), context: line.context.clone() });
            }
        }
        if is_complete {
            let line = self.lines.remove(at);
            if !line.is_oversized {
                lines.push(Line { text: line.text, context: line.context });
            }
        }
        if lines.is_empty() { JoinResult::Incomplete } else { JoinResult::Lines(lines) }
    }

    /// Opens a line with its first piece.
    fn open(&mut self, stream: Vec<u8>, piece: Piece<'_>, context: &Context, limit: usize) -> JoinResult {
        if is_whole(piece) {
            return JoinResult::Piece;
        }
        let mut lines = Vec::new();
        if self.lines.len() >= MAX_OPEN_LINES {
            lines = self.remove(0);
        }
        let mut json = is_json(piece.text).then(JsonPrefix::default);
        if let Some(json) = &mut json {
            json.push(piece.text);
        }
        let is_oversized = piece.text.len() > limit;
        let mut text = piece.text[..piece.text.len().min(limit)].to_vec();
        if is_oversized {
            lines.push(Line { text: std::mem::take(&mut text), context: context.clone() });
        }
        self.lines.push(OpenLine {
            stream,
            text,
            starts: vec![0],
            json,
            is_marked: piece.end == PieceEnd::Continued,
            is_oversized,
            context: context.clone(),
        });
        if lines.is_empty() { JoinResult::Incomplete } else { JoinResult::Lines(lines) }
    }

    /// Stops waiting for the rest of a line, and returns what to evaluate of it.
    fn remove(&mut self, at: usize) -> Vec<Line> {
        let line = self.lines.remove(at);
        if line.is_oversized {
            return Vec::new();
        }
        if line.is_marked || line.starts.len() == 1 {
            return vec![Line { text: line.text, context: line.context }];
        }
        // The pieces were not marked and the text is incomplete JSON, so the pieces were separate records, the first of which was
        // truncated.
        let ends = line.starts[1..].iter().copied().chain([line.text.len()]);
        let mut lines = Vec::new();
        for (start, end) in line.starts.iter().copied().zip(ends) {
            let text = &line.text[start..end];
            if start == 0 || is_json(text) {
                lines.push(Line { text: text.to_vec(), context: line.context.clone() });
            } else {
                self.dropped_pieces += 1;
            }
        }
        lines
    }

    /// Stops waiting for the rest of all lines.
    pub(super) fn finish(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while !self.lines.is_empty() {
            lines.extend(self.remove(0));
        }
        lines
    }
}

fn is_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Whether a piece that does not continue a line is a complete line.
fn is_whole(piece: Piece<'_>) -> bool {
    match piece.end {
        PieceEnd::Final => true,
        PieceEnd::Continued => false,
        PieceEnd::Unknown => !is_json(piece.text) || Raw::first(piece.text).is_ok(),
    }
}

/// Extracts the piece that a line contains, from behind a container runtime's header or from a member of a log shipper's record, and passes
/// its stream and the piece to `take`. Returns `None` if the line has neither form.
pub(super) fn piece_of<T>(line: &[u8], take: impl FnOnce(Vec<u8>, Piece<'_>) -> T) -> Option<T> {
    if !line.starts_with(b"{") {
        let prefix = prefix::strip(line)?;
        return Some(take(stream_of_prefix(prefix.stream), Piece::after_prefix(prefix.text)));
    }
    if line.starts_with(PLAIN_START) {
        return None;
    }
    let record = Raw::first(line).ok()?;
    let shape = Shape::of(record);
    if !shape.is_wrapper() {
        return None;
    }
    let text = shape.line()?;
    let piece = Piece::of_record(&shape, &text);
    Some(match CriLine::parse(piece.text) {
        Some(cri) => take([&stream_of(record)[..], cri.stream].concat(), cri.piece),
        None => take(stream_of(record), piece),
    })
}

/// The stream name of lines with a header.
pub(super) fn stream_of_prefix(stream: &[u8]) -> Vec<u8> {
    [b"prefix ", stream].concat()
}

/// The members of a shipper's record that identify the stream of a line.
pub(super) fn stream_of(record: Raw<'_>) -> Vec<u8> {
    const KEYS: [&str; 15] = [
        "stream",
        "file",
        "tag",
        "host",
        "hostname",
        "source",
        "container_id",
        "container_name",
        "partial_id",
        "kubernetes",
        "docker",
        "labels",
        "_STREAM_ID",
        "_SYSTEMD_UNIT",
        "_PID",
    ];
    let mut stream = Vec::new();
    for value in record.get_all(KEYS) {
        stream.push(b'\n');
        stream.extend_from_slice(value.map(Raw::bytes).unwrap_or_default());
    }
    stream
}
