//! Reads the YAML documents of a file to values, and collects errors.
//!
//! Takes the text of a configuration file or an audit policy; returns its nodes, and diagnostics with positions. The meaning of keys is up
//! to the caller. Rule files only use its spans, because the reference engine accepts input in them that is an error elsewhere.

use super::diagnostics::{Diagnostic, Severity, Span};
use super::suggest::did_you_mean;
use super::yaml::{self, Documents, Entry, Node};

/// A file that is being read.
pub(crate) struct DocumentReader<'f> {
    /// The index of the file in the spans of diagnostics.
    file: usize,
    text: &'f str,
    diagnostics: Vec<Diagnostic>,
}

/// The span of a node. For a multi-line block it is the first line, so that a message does not underline a whole file.
pub(crate) fn first_line(file: usize, text: &str, node: &Node) -> Span {
    let length = text.get(node.range.clone()).and_then(|text| text.find('\n'));
    let end = length.map_or(node.range.end, |length| node.range.start + length);
    Span { file, range: node.range.start..end }
}

impl<'f> DocumentReader<'f> {
    pub fn new(file: usize, text: &'f str) -> Self {
        DocumentReader { file, text, diagnostics: Vec::new() }
    }

    /// Parses the file. Repeated keys are errors, because it is unknown which value was intended.
    pub fn documents(&mut self) -> Option<Documents> {
        let documents = match yaml::parse(self.text) {
            Ok(documents) => documents,
            Err(error) => {
                let span = Span { file: self.file, range: error.range };
                self.report(Diagnostic::error("yaml", format!("not valid YAML: {}", error.message), span));
                return None;
            }
        };
        for (key, range) in &documents.repeated_keys {
            let span = Span { file: self.file, range: range.clone() };
            self.report(Diagnostic::error("repeated-key", format!("duplicate key `{key}`"), span));
        }
        Some(documents)
    }

    /// The span of a node, as [`first_line`] returns it.
    pub fn span(&self, node: &Node) -> Span {
        first_line(self.file, self.text, node)
    }

    /// The span of the whole file, for messages about missing keys.
    pub fn start(&self) -> Span {
        Span { file: self.file, range: 0..0 }
    }

    /// The line number of a byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Reports an error at a node.
    pub fn error(
        &mut self,
        code: &'static str,
        node: &Node,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        let span = self.span(node);
        self.report(Diagnostic::error(code, message, span).label(label));
    }

    /// The entries of a mapping. Keys that are not `known` are errors; `consequence` continues their messages.
    pub fn entries<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
        consequence: &str,
    ) -> Option<&'n [Entry]> {
        let Some(entries) = node.mapping() else {
            self.error("no-mapping", node, format!("{what} must be a mapping"), "expected `key: value`");
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let span = Span { file: self.file, range: entry.key_range.clone() };
            let help = did_you_mean(&entry.key, known.iter().copied())
                .unwrap_or_else(|| format!("valid keys: {}", known.join(", ")));
            let message = format!("unknown key `{}` in {what}{consequence}", entry.key);
            self.report(Diagnostic::error("unknown-key", message, span).label("unknown key").help(help));
        }
        Some(entries)
    }

    /// The value of a key that is a sequence; none if the key is missing or has no value.
    pub fn items<'n>(
        &mut self,
        node: &'n Node,
        key: &str,
        expected: &str,
    ) -> Result<Option<&'n [std::sync::Arc<Node>]>, InvalidValue> {
        let Some(found) = node.get(key).filter(|node| !node.is_null()) else { return Ok(None) };
        let items = found.sequence();
        if items.is_none() {
            self.error("no-sequence", found, format!("`{key}` must be a sequence"), expected);
            return Err(InvalidValue);
        }
        Ok(items)
    }

    /// The diagnostics in the order of the file, and whether one of them is an error.
    pub fn finish(self) -> (Vec<Diagnostic>, bool) {
        let mut diagnostics = self.diagnostics;
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.range.start);
        let has_errors = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        (diagnostics, has_errors)
    }
}

/// A value has another form than its key requires. The error was reported.
#[derive(Debug)]
pub(crate) struct InvalidValue;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reports_duplicate_and_unknown_keys_and_wrong_forms_in_the_order_of_the_file() {
        let text = "list: x\nlost: []\nlist: y\n";
        let mut reader = DocumentReader::new(3, text);
        let documents = reader.documents().unwrap();
        let root = &documents.roots[0];
        assert!(reader.items(root, "list", "expected `- x`").is_err());
        assert!(reader.items(root, "none", "").unwrap().is_none());
        assert_eq!(reader.entries(root, "a file", &["list"], "; it is rejected").unwrap().len(), 2);
        let (diagnostics, has_errors) = reader.finish();
        let found: Vec<_> = diagnostics.iter().map(|one| (one.code, one.span.range.start)).collect();
        assert_eq!(found, [("no-sequence", 6), ("unknown-key", 8), ("repeated-key", 17)]);
        assert_eq!(diagnostics[1].message, "unknown key `lost` in a file; it is rejected");
        assert_eq!(diagnostics[1].help, ["did you mean `list`?"]);
        assert!(has_errors && diagnostics.iter().all(|one| one.span.file == 3));
    }

    #[test]
    fn a_block_is_shown_by_its_first_line() {
        let text = "a:\n  b: 1\n  c: 2\n";
        let mut reader = DocumentReader::new(0, text);
        let documents = reader.documents().unwrap();
        let block = documents.roots[0].get("a").unwrap();
        assert_eq!(&text[reader.span(block).range], "b: 1");
        assert_eq!(reader.line(block.range.start), 2);
    }
}
