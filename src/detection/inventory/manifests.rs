//! YAML of objects: `kubectl get -o yaml`, manifests, and the output of Helm with its headers and notes.
//!
//! The text is split into documents first, so that errors name a line of the input, and so that the text that Helm prints around the
//! documents is ignored. Each document is converted to JSON, which is read like any other.

use super::{Error, MAX_YAML};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::registry::declared_objects::{AddResult, Builder, ImportPass};
use crate::text::yaml::{self, Node, Value};

/// Maximum size of a document as JSON: YAML aliases can multiply the size of a document.
const MAX_JSON: usize = 4 * MAX_YAML;

/// Lines that Helm prints around documents.
const HELM_SECTIONS: [&str; 4] = ["HOOKS:", "MANIFEST:", "COMPUTED VALUES:", "USER-SUPPLIED VALUES:"];

/// The heading of free text at the end of Helm's output.
const HELM_NOTES: &str = "NOTES:";

/// Returns whether a text has the members that every object has, each at the start of a line.
pub(super) fn looks_like_manifests(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.strip_prefix("- ").unwrap_or(line);
        ["apiVersion:", "kind:", "items:", "\"apiVersion\":", "\"kind\":"]
            .iter()
            .any(|key| line.starts_with(key))
    })
}

/// A document and the line at which it starts, from 0.
struct Document<'t> {
    text: &'t str,
    line: usize,
}

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> Result<(), Error> {
    if text.len() > MAX_YAML {
        let message = format!("YAML of {} bytes exceeds the limit of {MAX_YAML}: use `-o json`", text.len());
        return Err(Error::new(1, message));
    }
    let documents = documents(text);
    let mut has_objects = false;
    // Bindings are read after the roles, which may come later in the input. Converting twice takes less memory than keeping all documents.
    for phase in [ImportPass::Objects, ImportPass::Bindings] {
        for document in &documents {
            if phase == ImportPass::Bindings && !document.text.contains("Binding") {
                continue;
            }
            has_objects |= read_document(document, phase, builder)?;
        }
    }
    if has_objects { Ok(()) } else { Err(Error::new(1, "no object with `kind` and `metadata`")) }
}

/// Splits a text at document markers and at Helm's headings.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at, mut is_in_notes) = (0, 0, 0, false);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let is_marker = bare == "---" || bare.starts_with("--- ") || bare == "...";
        let is_heading = HELM_SECTIONS.contains(&bare);
        let starts_notes = bare == HELM_NOTES;
        if is_marker && !is_in_notes || is_heading || starts_notes {
            if !is_in_notes {
                documents.push(Document { text: &text[start..at], line: first_line });
            }
            is_in_notes = starts_notes;
            start = at + line.len();
            first_line = number + 1;
        }
        at += line.len();
    }
    if !is_in_notes {
        documents.push(Document { text: &text[start..], line: first_line });
    }
    documents.retain(|document| looks_like_manifests(document.text));
    documents
}

/// Reads one document. Returns whether it has objects.
fn read_document(
    document: &Document<'_>,
    phase: ImportPass,
    builder: &mut Builder<'_>,
) -> Result<bool, Error> {
    let line = |at: usize| document.line + super::line_at(document.text.as_bytes(), at);
    let parsed = yaml::parse(document.text).map_err(|error| {
        let hint = if document.text.contains("{{") {
            " (templates of Helm have to be rendered: `helm template`)"
        } else {
            ""
        };
        Error::new(line(error.range.start), format!("not valid YAML: {}{hint}", error.message))
    })?;
    let mut has_objects = false;
    for root in parsed.roots.iter().filter(|root| !root.is_null()) {
        let mut json = Vec::new();
        if !write_json(root, &mut json) {
            let message = format!("the document exceeds {MAX_JSON} bytes once its aliases are resolved");
            return Err(Error::new(line(root.range.start), message));
        }
        let value = Raw::assume(&json);
        let items: Vec<Raw<'_>> = match value.kind() {
            Type::Array => value.items().map_while(Result::ok).collect(),
            Type::Object => vec![value],
            // Free text next to the documents.
            Type::String | Type::Scalar => continue,
        };
        for item in items {
            let added = builder.add(item, phase).map_err(|full| Error::full(line(root.range.start), full))?;
            has_objects |= added != AddResult::NoKind;
        }
    }
    Ok(has_objects)
}

/// Writes a node as JSON. Returns false if it becomes too long. The depth of nodes is bounded.
fn write_json(node: &Node, out: &mut Vec<u8>) -> bool {
    match &node.value {
        Value::Scalar(_) => {
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(&mut *out, &node.to_json());
        }
        Value::Sequence(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if !write_json(item, out) {
                    return false;
                }
            }
            out.push(b']');
        }
        Value::Mapping(entries) => {
            out.push(b'{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                let _ = serde_json::to_writer(&mut *out, &entry.key);
                out.push(b':');
                if !write_json(&entry.value, out) {
                    return false;
                }
            }
            out.push(b'}');
        }
    }
    out.len() <= MAX_JSON
}
