//! A lazy JSON reader.
//!
//! Takes a slice of bytes; returns subslices ([`Raw`]) for values, and iterators over members and elements. It reads no further than
//! necessary: the end of a value is found without parsing its content, 64 bytes at a time, with bit masks for strings and nesting. Only
//! strings with escapes are copied. It must never recurse or panic, whatever the input.
//!
//! In a skipped value, strings must be terminated and brackets must balance; commas, colons and the kinds of brackets are not checked. A
//! value that is iterated over ([`Raw::members`], [`Raw::items`]) is checked member by member.

use std::borrow::Cow;
use std::fmt;

use wide::u8x16;

use super::steps;

/// The reason why a value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ends inside a value: its line was truncated.
    #[error("the text ends inside a value")]
    Truncated,
    #[error("invalid JSON")]
    Syntax,
}

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Type {
    Object,
    Array,
    String,
    /// A number, `true`, `false` or `null`.
    Scalar,
}

/// Bit masks of 64 bytes: bit i is set if byte i is of the kind.
struct Block {
    quotes: u64,
    backslashes: u64,
    opens: u64,
    closes: u64,
}

impl Block {
    /// The block that starts at `at`, padded with spaces behind the end of the text.
    #[inline]
    fn at(bytes: &[u8], at: usize) -> Self {
        steps::add(64);
        let rest = &bytes[at..];
        match rest.first_chunk::<64>() {
            Some(chunk) => Block::of(chunk),
            None => {
                let mut tail = [b' '; 64];
                tail[..rest.len()].copy_from_slice(rest);
                Block::of(&tail)
            }
        }
    }

    #[inline]
    fn of(bytes: &[u8; 64]) -> Self {
        let mut block = Block { quotes: 0, backslashes: 0, opens: 0, closes: 0 };
        // `[` and `{`, and `]` and `}`, differ only in this bit.
        let case = u8x16::splat(0x20);
        let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
        let (open, close) = (u8x16::splat(b'{'), u8x16::splat(b'}'));
        for (i, lane) in bytes.as_chunks::<16>().0.iter().enumerate() {
            let lane = u8x16::new(*lane);
            let folded = lane | case;
            let shift = i * 16;
            block.quotes |= u64::from(lane.simd_eq(quote).to_bitmask()) << shift;
            block.backslashes |= u64::from(lane.simd_eq(backslash).to_bitmask()) << shift;
            block.opens |= u64::from(folded.simd_eq(open).to_bitmask()) << shift;
            block.closes |= u64::from(folded.simd_eq(close).to_bitmask()) << shift;
        }
        block
    }
}

/// Bit i of the result is the parity of bits 0..=i. For the bits of quotes, the result is 1 from an opening quote up to its closing quote.
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

/// Mask of the bits at even positions.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// The bytes that are escaped: those that follow a backslash which is not escaped itself. `carry` is 1 if the first byte of the next block
/// is escaped. The addition propagates a carry through every run of backslashes at once (simdjson, "Parsing Gigabytes of JSON per Second",
/// section 3.1.1).
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    if backslashes == 0 {
        return std::mem::take(carry);
    }
    let starts = backslashes & !*carry;
    let follows = starts << 1 | *carry;
    let odd_starts = starts & !EVEN & !follows;
    let (even_runs, overflow) = odd_starts.overflowing_add(starts);
    *carry = u64::from(overflow);
    (EVEN ^ (even_runs << 1)) & follows
}

/// Returns the index after the bracket that closes the one at `start`.
fn container_end(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let (mut depth, mut inside, mut carry) = (0_usize, 0_u64, 0_u64);
    let mut at = start;
    while at < bytes.len() {
        let block = Block::at(bytes, at);
        let quotes = block.quotes & !escaped(block.backslashes, &mut carry);
        let strings = prefix_xor(quotes) ^ inside;
        // All ones if a string continues in the next block.
        inside = 0_u64.wrapping_sub(strings >> 63);
        // One bracket after the other: a block contains few of them, and counting bits is slower on machines without an instruction for it.
        let mut brackets = (block.opens | block.closes) & !strings;
        while brackets != 0 {
            let bracket = brackets & brackets.wrapping_neg();
            if block.opens & bracket != 0 {
                depth += 1;
            } else if depth <= 1 {
                return Ok(at + bracket.trailing_zeros() as usize + 1);
            } else {
                depth -= 1;
            }
            brackets ^= bracket;
        }
        at += 64;
    }
    Err(JsonError::Truncated)
}

/// Returns the index after the closing quote of the string whose opening quote is at `start`, and whether the string contains a
/// backslash.
#[inline]
fn string_end(bytes: &[u8], start: usize) -> Result<(usize, bool), JsonError> {
    let (quote, backslash) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    let mut at = start + 1;
    // Most strings of an event are shorter than 16 bytes, for which a call of memchr would take longer than this comparison.
    while let Some(lane) = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let lane = u8x16::new(*lane);
        let found = (lane.simd_eq(quote) | lane.simd_eq(backslash)).to_bitmask();
        if found != 0 {
            at += found.trailing_zeros() as usize;
            return if bytes[at] == b'"' { Ok((at + 1, false)) } else { escaped_string_end(bytes, at) };
        }
        at += 16;
        steps::add(16);
    }
    while let Some(&byte) = bytes.get(at) {
        steps::add(1);
        match byte {
            b'"' => return Ok((at + 1, false)),
            b'\\' => return escaped_string_end(bytes, at),
            _ => at += 1,
        }
    }
    Err(JsonError::Truncated)
}

/// The same for a string whose first backslash is at `at`. Logs inside JSON have an escape every few bytes, and searching for each would
/// take several times as long as these masks.
fn escaped_string_end(bytes: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    let mut carry = 0_u64;
    while at < bytes.len() {
        let block = Block::at(bytes, at);
        let quotes = block.quotes & !escaped(block.backslashes, &mut carry);
        if quotes != 0 {
            return Ok((at + quotes.trailing_zeros() as usize + 1, true));
        }
        at += 64;
    }
    Err(JsonError::Truncated)
}

#[inline]
fn skip_whitespace(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = bytes.get(at) {
        steps::add(1);
        at += 1;
    }
    at
}

/// Returns the index after the number or literal at `start`. If the text ends inside a number, the number looks complete, but the container
/// around it is truncated.
fn scalar_end(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let rest = &bytes[start..];
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    let good = match word.first() {
        Some(b't') => b"true".starts_with(word) && (word.len() == 4 || length == rest.len()),
        Some(b'f') => b"false".starts_with(word) && (word.len() == 5 || length == rest.len()),
        Some(b'n') => b"null".starts_with(word) && (word.len() == 4 || length == rest.len()),
        Some(b'-' | b'0'..=b'9') => {
            word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        }
        _ => false,
    };
    if good { Ok(start + length) } else { Err(JsonError::Syntax) }
}

/// Returns the index after the value that starts at `start`.
#[inline]
fn value_end(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    match bytes.get(start) {
        None => Err(JsonError::Truncated),
        Some(b'"') => string_end(bytes, start).map(|(end, _)| end),
        Some(b'{' | b'[') => container_end(bytes, start),
        Some(_) => scalar_end(bytes, start),
    }
}

/// The text of one JSON value. It may contain secrets: `Debug` shows its length only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a [u8]);

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.0.len())
    }
}

impl<'a> Raw<'a> {
    /// Reads the value at the start of `bytes`, after whitespace.
    ///
    /// # Errors
    /// If the value does not end in `bytes`, or is not JSON.
    pub fn first(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let start = skip_whitespace(bytes, 0);
        let end = value_end(bytes, start)?;
        Ok(Raw(&bytes[start..end]))
    }

    /// Treats `bytes` as one value without checking. If they are not one, it has no members, elements or text.
    pub fn assume(bytes: &'a [u8]) -> Self {
        Raw(bytes)
    }

    /// The JSON text.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The type, by the first byte.
    pub fn kind(self) -> Type {
        match self.0.first() {
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b'"') => Type::String,
            _ => Type::Scalar,
        }
    }

    /// The content of a string, unescaped; `None` for other types. It need not be UTF-8, since the input need not be.
    pub fn string(self) -> Option<Cow<'a, [u8]>> {
        let inner = self.0.strip_prefix(b"\"")?;
        let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
        Some(unescape(inner))
    }

    /// The value as the rule language compares it: the content of a string, compact JSON in source order for other types.
    pub fn text(self) -> Cow<'a, [u8]> {
        match self.kind() {
            Type::String => self.string().unwrap_or_default(),
            Type::Scalar => Cow::Borrowed(self.0),
            Type::Object | Type::Array => self.compact(),
        }
    }

    /// The JSON text without whitespace between tokens.
    pub fn compact(self) -> Cow<'a, [u8]> {
        steps::add(self.0.len());
        let mut compact: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < self.0.len() {
            let end = match self.0[at] {
                b'"' => string_end(self.0, at).map_or(self.0.len(), |(end, _)| end),
                b' ' | b'\t' | b'\r' | b'\n' => {
                    compact.get_or_insert_with(|| self.0[..at].to_vec());
                    at += 1;
                    continue;
                }
                _ => at + 1,
            };
            if let Some(compact) = &mut compact {
                compact.extend_from_slice(&self.0[at..end]);
            }
            at = end;
        }
        compact.map_or(Cow::Borrowed(self.0), Cow::Owned)
    }

    /// Iterates over the members of an object. Other types have none.
    #[inline]
    pub fn members(self) -> Members<'a> {
        Members { cursor: Cursor::new(self.0, b'{') }
    }

    /// Iterates over the elements of an array. Other types have none.
    pub fn items(self) -> Items<'a> {
        Items { cursor: Cursor::new(self.0, b'[') }
    }

    /// The value of the first member of this name.
    pub fn get(self, key: &str) -> Option<Raw<'a>> {
        self.members().map_while(Result::ok).find(|(name, _)| name.is(key)).map(|(_, value)| value)
    }

    /// The values of the first members of these names, in one pass over the object.
    pub fn get_all<const N: usize>(self, keys: [&str; N]) -> [Option<Raw<'a>>; N] {
        let mut found = [None; N];
        let mut missing = N;
        for (name, value) in self.members().map_while(Result::ok) {
            if let Some(at) = keys.iter().position(|key| name.is(key))
                && found[at].is_none()
            {
                found[at] = Some(value);
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        found
    }

    /// The same for an object that may be truncated. Also returns the index of the name whose value is truncated, and the available part of
    /// that value.
    pub fn get_all_or_cut<const N: usize>(
        self,
        keys: [&str; N],
    ) -> ([Option<Raw<'a>>; N], Option<(usize, Raw<'a>)>) {
        let mut found = [None; N];
        let mut cursor = Cursor::new(self.0, b'{');
        while let Some(Ok(name)) = cursor.key() {
            let at = keys.iter().position(|key| name.is(key)).filter(|at| found[*at].is_none());
            let rest = Raw(cursor.remainder());
            match (cursor.value(), at) {
                (Ok(value), Some(at)) => found[at] = Some(value),
                (Ok(_), None) => {}
                (Err(_), at) => return (found, at.map(|at| (at, rest))),
            }
        }
        (found, None)
    }

    /// Iterates over the elements of the array that is the value of a member, up to the end of the text. Does not search for the end of the
    /// array first, since it may be megabytes long.
    pub fn items_of(self, key: &str) -> impl Iterator<Item = Raw<'a>> {
        let mut cursor = Cursor::new(self.0, b'{');
        let found = loop {
            match cursor.key() {
                Some(Ok(name)) if name.is(key) => break Some(Raw(cursor.remainder())),
                Some(Ok(_)) if cursor.value().is_ok() => {}
                _ => break None,
            }
        };
        found.into_iter().flat_map(Raw::items).map_while(Result::ok)
    }

    /// The value at a path of keys.
    pub fn path(self, keys: &[&str]) -> Option<Raw<'a>> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The member or element that a token of a JSON pointer (RFC 6901) refers to.
    pub fn step(self, token: &str) -> Option<Raw<'a>> {
        match self.kind() {
            Type::Object => self.get(token),
            Type::Array => {
                // RFC 6901: digits without a leading zero.
                let index: usize = token.parse().ok()?;
                if token.starts_with('+') || (token.len() > 1 && token.starts_with('0')) {
                    return None;
                }
                self.items().map_while(Result::ok).nth(index)
            }
            _ => None,
        }
    }
}

/// Decodes the escapes of a string. Lone surrogates and invalid escapes become U+FFFD.
fn unescape(inner: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', inner) else { return Cow::Borrowed(inner) };
    steps::add(inner.len());
    let mut out = Vec::with_capacity(inner.len() + LANE);
    out.extend_from_slice(&inner[..first]);
    let mut at = first;
    // A copy of a fixed length is faster than one of the exact length; the excess is removed afterwards.
    while let Some(lane) = inner.get(at..).and_then(<[u8]>::first_chunk::<LANE>) {
        let backslashes = u8x16::new(*lane).simd_eq(u8x16::splat(b'\\')).to_bitmask();
        let before = out.len();
        out.extend_from_slice(lane);
        if backslashes == 0 {
            at += LANE;
            continue;
        }
        let plain = backslashes.trailing_zeros() as usize;
        out.truncate(before + plain);
        at += plain;
        // By far the most frequent escapes in JSON nested inside JSON.
        if let Some(&byte @ (b'"' | b'\\')) = inner.get(at + 1) {
            out.push(byte);
            at += 2;
        } else {
            at = push_escape(inner, at, &mut out);
        }
    }
    while let Some(&byte) = inner.get(at) {
        if byte == b'\\' {
            at = push_escape(inner, at, &mut out);
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Cow::Owned(out)
}

/// Number of bytes compared at once.
const LANE: usize = 16;

/// Appends the character that the escape at `at` represents. Returns the index after the escape.
fn push_escape(inner: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let at = at + 2;
    let plain = match inner.get(at - 1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'u') => return push_unicode_escape(inner, at, out),
        _ => {
            out.extend_from_slice("\u{fffd}".as_bytes());
            return at;
        }
    };
    out.push(plain);
    at
}

/// The same for `\u`, whose four digits start at `at`.
fn push_unicode_escape(inner: &[u8], mut at: usize, out: &mut Vec<u8>) -> usize {
    let unit = hex4(inner, at);
    at += if unit.is_some() { 4 } else { 0 };
    let mut point = unit.map_or(0xfffd, u32::from);
    if (0xd800..0xdc00).contains(&point)
        && inner.get(at..at + 2) == Some(b"\\u")
        && let Some(low @ 0xdc00..=0xdfff) = hex4(inner, at + 2).map(u32::from)
    {
        at += 6;
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    let letter = char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    at
}

fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0_u16, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// The name of a member, with its escapes.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    inner: &'a [u8],
    escaped: bool,
}

impl<'a> Key<'a> {
    /// Whether the decoded name equals `name`.
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        if self.escaped { *unescape(self.inner) == *name.as_bytes() } else { self.inner == name.as_bytes() }
    }

    /// The decoded name.
    #[inline]
    pub fn text(&self) -> Cow<'a, [u8]> {
        if self.escaped { unescape(self.inner) } else { Cow::Borrowed(self.inner) }
    }
}

/// A position in one container. Returns its members or elements one by one; stops at the first error.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Nothing was read yet: no comma is expected.
    fresh: bool,
    done: bool,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor(at {} of {} bytes)", self.at, self.bytes.len())
    }
}

impl<'a> Cursor<'a> {
    /// A cursor before the first member or element of the container in `bytes`, which must start with `open`.
    #[inline]
    pub fn new(bytes: &'a [u8], open: u8) -> Self {
        let start = skip_whitespace(bytes, 0);
        // An empty text has no position after its first byte.
        let at = bytes.len().min(start + 1);
        Cursor { bytes, at, fresh: true, done: bytes.get(start) != Some(&open) }
    }

    /// The truncated member, if its value is an object or an array: its name, not unescaped, and the available part of its value.
    #[cold]
    pub fn cut_member(&self) -> Option<(&'a [u8], Raw<'a>)> {
        let rest = self.remainder();
        if !matches!(rest.first(), Some(b'{' | b'[')) {
            return None;
        }
        let before = self.bytes[..self.at].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
        let name = before.strip_suffix(b"\"")?.rsplit(|&byte| byte == b'"').next()?;
        Some((name, Raw::assume(rest)))
    }

    /// The truncated member, after [`JsonError::Truncated`]: its name, not unescaped, and the available part of its value, which may be a
    /// string.
    #[cold]
    pub fn truncated_member(&self) -> Option<(&'a [u8], Raw<'a>)> {
        let rest = self.remainder();
        if rest.is_empty() {
            return None;
        }
        let before = self.bytes.get(..self.at)?.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
        let name = before.strip_suffix(b"\"")?.rsplit(|&byte| byte == b'"').next()?;
        Some((name, Raw::assume(rest)))
    }

    /// Continues after a member or element that was read by other means.
    pub(super) fn continue_from(&mut self, at: usize) {
        self.at = at;
        self.fresh = false;
    }

    /// The index after the part that was read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Moves to the next member or element. Returns false after the last one.
    #[inline]
    fn advance(&mut self, close: u8) -> Result<bool, JsonError> {
        if self.done {
            return Ok(false);
        }
        self.at = skip_whitespace(self.bytes, self.at);
        let fresh = std::mem::take(&mut self.fresh);
        match self.bytes.get(self.at) {
            None => self.stop(JsonError::Truncated),
            Some(&byte) if byte == close => {
                self.at += 1;
                self.done = true;
                Ok(false)
            }
            Some(b',') if !fresh => {
                self.at = skip_whitespace(self.bytes, self.at + 1);
                Ok(true)
            }
            Some(_) if fresh => Ok(true),
            Some(_) => self.stop(JsonError::Syntax),
        }
    }

    #[cold]
    fn stop<T>(&mut self, broken: JsonError) -> Result<T, JsonError> {
        self.done = true;
        Err(broken)
    }

    /// Moves to the value of the next member, if its name is written in these bytes, with the comma before it and the colon behind it, and a
    /// string, an object or an array follows. Returns whether it did.
    #[inline]
    pub(super) fn skip_name(&mut self, name: &[u8]) -> bool {
        if self.done || self.fresh {
            return false;
        }
        let rest = self.remainder();
        // Most names that are tried are others, and differ in the first bytes: a call that compares all of them takes longer.
        let is_next = rest.first_chunk::<8>() == name.first_chunk::<8>()
            && rest.strip_prefix(name).is_some_and(|value| matches!(value.first(), Some(b'"' | b'{' | b'[')));
        if is_next {
            self.at += name.len();
        }
        is_next
    }

    /// The value at the cursor, after the name of its member.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Raw<'a>, JsonError> {
        match value_end(self.bytes, self.at) {
            Ok(end) => {
                let value = Raw(&self.bytes[self.at..end]);
                self.at = end;
                Ok(value)
            }
            Err(broken) => self.stop(broken),
        }
    }

    /// The next member of an object.
    #[inline]
    pub fn member(&mut self) -> Option<Result<(Key<'a>, Raw<'a>), JsonError>> {
        match self.key()? {
            Ok(key) => Some(self.value().map(|value| (key, value))),
            Err(broken) => Some(Err(broken)),
        }
    }

    /// The name of the next member of an object. The cursor is then before its value.
    #[inline]
    fn key(&mut self) -> Option<Result<Key<'a>, JsonError>> {
        if !self.done && !self.fresh && matches!(self.bytes.get(self.at..), Some([b',', b'"', ..])) {
            // Fast path: no whitespace, as in almost all events.
            self.at += 1;
        } else {
            match self.advance(b'}') {
                Ok(false) => return None,
                Err(broken) => return Some(Err(broken)),
                Ok(true) => {}
            }
            match self.bytes.get(self.at) {
                Some(b'"') => {}
                None => return Some(self.stop(JsonError::Truncated)),
                Some(_) => return Some(self.stop(JsonError::Syntax)),
            }
        }
        let (end, escaped) = match string_end(self.bytes, self.at) {
            Ok(found) => found,
            Err(broken) => return Some(self.stop(broken)),
        };
        let key = Key { inner: &self.bytes[self.at + 1..end - 1], escaped };
        if let Some([b':', b'"' | b'{' | b'[', ..]) = self.bytes.get(end..) {
            self.at = end + 1;
            return Some(Ok(key));
        }
        self.at = skip_whitespace(self.bytes, end);
        match self.bytes.get(self.at) {
            Some(b':') => self.at = skip_whitespace(self.bytes, self.at + 1),
            None => return Some(self.stop(JsonError::Truncated)),
            Some(_) => return Some(self.stop(JsonError::Syntax)),
        }
        Some(Ok(key))
    }

    /// The next element of an array.
    pub fn item(&mut self) -> Option<Result<Raw<'a>, JsonError>> {
        match self.advance(b']') {
            Ok(true) => Some(self.value()),
            Ok(false) => None,
            Err(broken) => Some(Err(broken)),
        }
    }

    /// The text from the cursor on. In a truncated container, this is the available part of the truncated value; after a container that was
    /// read to its end, the text behind it.
    pub fn remainder(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// Iterates over the members of an object. Ends after an error.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(Key<'a>, Raw<'a>), JsonError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.member()
    }
}

/// Iterates over the elements of an array. Ends after an error.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Raw<'a>, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.item()
    }
}

/// A parsed JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    tokens: Box<[Box<str>]>,
}

impl Pointer {
    /// Parses a pointer. The leading slash is optional.
    pub fn new(text: &str) -> Self {
        if text.is_empty() {
            return Pointer { tokens: Box::default() };
        }
        let text = text.strip_prefix('/').unwrap_or(text);
        Pointer {
            tokens: text.split('/').map(|token| token.replace("~1", "/").replace("~0", "~").into()).collect(),
        }
    }

    /// The unescaped tokens.
    pub fn tokens(&self) -> &[Box<str>] {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(text: &str) -> Result<usize, JsonError> {
        value_end(text.as_bytes(), 0)
    }

    #[test]
    fn finds_the_end_of_values() {
        assert_eq!(end(r#""a\"b" "#), Ok(6));
        assert_eq!(end(r#"{"a":"}","b":[1,{"c":"\\"}]},"#), Ok(28));
        assert_eq!(end("truex"), Err(JsonError::Syntax));
        assert_eq!(end("tru"), Ok(3));
        assert_eq!(end("{\"a\":1"), Err(JsonError::Truncated));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000) + ",";
        assert_eq!(end(&deep), Ok(200_000));
        assert_eq!(end(&"{\"a\":".repeat(10_000)), Err(JsonError::Truncated));
    }

    #[test]
    fn decodes_strings() {
        let text = |json: &str| String::from_utf8(Raw(json.as_bytes()).text().into_owned()).unwrap();
        assert_eq!(text(r#""a\u0026\n\"\\\/""#), "a&\n\"\\/");
        assert_eq!(text(r#""\ud83d\ude00""#), "😀");
        assert_eq!(text(r#""\ud83d\u0041 \udc00 \x \u12""#), "\u{fffd}A \u{fffd} \u{fffd} \u{fffd}12");
        assert_eq!(text(" { \"a b\" : [ 1 , \" \" ] } ".trim()), r#"{"a b":[1," "]}"#);
        assert_eq!(text("null"), "null");
    }

    #[test]
    fn uses_the_first_of_equal_keys_and_decodes_keys() {
        let raw = Raw(br#"{"a":1,"a":2,"v\u0065rb":"get"}"#);
        assert_eq!(raw.get("a").unwrap().bytes(), b"1");
        assert_eq!(raw.get("verb").unwrap().bytes(), b"\"get\"");
    }

    #[test]
    fn stops_at_a_malformed_member() {
        let members: Vec<_> = Raw(br#"{"a":1 "b":2}"#).members().collect();
        assert_eq!(members.len(), 2);
        assert_eq!(members[1].as_ref().err(), Some(&JsonError::Syntax));
    }

    proptest! {
        /// The bit masks find the same end of a value as a byte-by-byte reader, at any alignment.
        #[test]
        fn masks_agree_with_a_byte_by_byte_reader(text in r#"[\[\]{}"\\a,:]{0,300}"#) {
            let text = format!("[{text}");
            let (mut depth, mut inside, mut skip, mut plain) = (0_usize, false, false, Err(JsonError::Truncated));
            for (i, byte) in text.bytes().enumerate() {
                // A backslash outside of strings is not valid JSON; both readers let it escape a quote.
                if std::mem::take(&mut skip) && matches!(byte, b'"' | b'\\') { continue; }
                match byte {
                    b'\\' => skip = true,
                    b'"' => inside = !inside,
                    b'[' | b'{' if !inside => depth += 1,
                    b']' | b'}' if !inside => {
                        depth -= 1;
                        if depth == 0 { plain = Ok(i + 1); break; }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(container_end(text.as_bytes(), 0), plain);
        }

        #[test]
        fn strings_survive_a_round_trip(text in any::<String>(), tail in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let line = format!("{json},{tail}");
            let raw = Raw::first(line.as_bytes()).unwrap();
            prop_assert_eq!(raw.bytes(), json.as_bytes());
            let read = raw.string().unwrap();
            prop_assert_eq!(&*read, text.as_bytes());
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(raw) = Raw::first(&bytes) {
                let _ = (raw.text(), raw.members().count(), raw.items().count(), raw.step("0"));
            }
        }
    }
}
