//! Reads inventories: declarations of what exists in a cluster, in the output formats of kubectl and Helm.
//!
//! Takes text, and returns an [`Inventory`]: tables of `kubectl get`, names (`-o name`), JSON and YAML of objects and lists, manifests, the
//! output of Helm, and what `export` wrote. The objects are read by the code that reads those of events (`registry::inventory`). Errors
//! name a line. It does no I/O.

mod export;
mod json;
mod manifests;
mod table;

pub use export::export;

use crate::detection::registry::Inventory;
use crate::detection::registry::declared_objects::Builder;
use crate::detection::registry::inventory::InventoryFull;
pub use crate::detection::registry::inventory::Origin;

/// Maximum size of an input in bytes: JSON of 50,000 pods.
pub const MAX_INPUT: usize = 512 << 20;

/// Maximum size of YAML, which is held as a tree that is larger than its text by an order of magnitude.
const MAX_YAML: usize = 32 << 20;

/// How to read an input.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Recorded with each entry.
    pub origin: Origin,
    /// The namespace of objects that do not state one.
    pub namespace: Option<String>,
    /// Whether secrets of an unknown type are registry credentials.
    pub asserts_credentials: bool,
}

/// Placeholder for an unknown namespace. Its credentials are recognized by name in every namespace.
pub(crate) const ANY_NAMESPACE: &str = "*";

/// What an input contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of objects that were read.
    pub objects: u64,
    /// Number of objects that contained nothing of interest.
    pub ignored: u64,
    /// Number of secrets of which only the name is known.
    pub untyped: u64,
}

/// Why an input cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl Error {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Error { line, message: message.into() }
    }

    fn full(line: usize, full: InventoryFull) -> Self {
        Error::new(line, full.to_string())
    }
}

/// Adds the content of an input to an inventory. On error, the inventory contains a part of it.
///
/// # Errors
///
/// If the input has an unknown format, or exceeds a limit.
pub fn read(bytes: &[u8], settings: &Settings, inventory: &mut Inventory) -> Result<Summary, Error> {
    if bytes.len() > MAX_INPUT {
        let message =
            format!("input of {} bytes exceeds the limit of {MAX_INPUT}: import it in parts", bytes.len());
        return Err(Error::new(1, message));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err(Error::new(1, "text in UTF-16, as PowerShell redirects output: save it as UTF-8"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        Error::new(line, "not valid UTF-8: save the file as UTF-8")
    })?;
    let first = text.trim_ascii_start().bytes().next();
    if export::is_export(text) {
        return export::import(text, inventory);
    }
    let origin = inventory.add_origin(settings.origin.clone());
    let mut builder = Builder {
        inventory,
        origin,
        namespace: settings.namespace.as_deref().unwrap_or(ANY_NAMESPACE),
        asserts_credentials: settings.asserts_credentials,
        objects: 0,
        ignored: 0,
        untyped: 0,
    };
    match first {
        None => return Err(Error::new(1, "empty input: expected the output of `kubectl get secrets -A`")),
        Some(b'{' | b'[') => json::read(text, &mut builder)?,
        Some(_) if manifests::looks_like_manifests(text) => manifests::read(text, &mut builder)?,
        Some(_) => table::read(text, &mut builder)?,
    }
    Ok(Summary { objects: builder.objects, ignored: builder.ignored, untyped: builder.untyped })
}

/// The line number of a byte, from 1.
fn line_at(bytes: &[u8], at: usize) -> usize {
    memchr::memchr_iter(b'\n', &bytes[..at.min(bytes.len())]).count() + 1
}

#[cfg(test)]
mod tests;
