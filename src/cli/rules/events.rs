//! Reads the events of a small file: one event, several, or a list, in any layout of JSON.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, bail};

use crate::daemon::source::decompress;
use crate::daemon::source::input::Input;
use crate::detection::audit::json::{Raw, Type};

/// Maximum file size in bytes, since the whole file is read into memory.
const MAX_FILE_SIZE: u64 = 256 * 1024 * 1024;

/// Reads a file of events, compressed or not. `-` reads standard input; a name that starts with `{` or `[` is interpreted as the JSON
/// itself.
pub fn read(name: &str) -> anyhow::Result<Vec<u8>> {
    if name.trim_start().starts_with(['{', '[']) {
        return Ok(name.as_bytes().to_vec());
    }
    let input = if name == "-" { Input::Stdin } else { Input::File(name.into()) };
    let mut bytes = Vec::new();
    decompress::open(&input, Arc::new(AtomicU64::new(0)))
        .and_then(|reader| reader.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", input.name()))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        bail!("{} is too large (limit {MAX_FILE_SIZE} bytes): extract the event first", input.name());
    }
    Ok(bytes)
}

/// Returns the JSON text of each event.
pub fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut events = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        let Ok(value) = Raw::first(rest) else { return events };
        if value.bytes().is_empty() {
            return events;
        }
        match value.kind() {
            Type::Object => match value.get("items").filter(|items| items.kind() == Type::Array) {
                Some(items) => events.extend(items.items().map_while(Result::ok).map(Raw::bytes)),
                None => events.push(value.bytes()),
            },
            Type::Array => events.extend(value.items().map_while(Result::ok).map(Raw::bytes)),
            _ => {}
        }
        rest = &rest[value.bytes().len()..];
    }
}
