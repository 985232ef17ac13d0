//! Diagnostics about rule, policy and configuration files.
//!
//! Takes messages with spans; returns text that shows each with its file, line and column.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A file in memory.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The name shown in messages.
    pub name: Arc<str>,
    /// The content.
    pub text: String,
}

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is rejected.
    Error,
    /// The file is accepted, but may not do what its author intended.
    Warning,
}

/// A range of bytes in one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the list of files.
    pub file: usize,
    /// Range of bytes in the file.
    pub range: Range<usize>,
}

/// One message about a span of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is rejected.
    pub severity: Severity,
    /// A stable identifier in kebab case, such as `unknown-key`.
    pub code: &'static str,
    /// The problem.
    pub message: String,
    /// The position of the problem.
    pub span: Span,
    /// A note at the position, such as what was expected. May be empty.
    pub label: String,
    /// Further positions, with notes, that explain the problem.
    pub others: Vec<(Span, String)>,
    /// How to resolve it.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            span,
            label: String::new(),
            others: Vec::new(),
            help: Vec::new(),
        }
    }

    /// A warning.
    pub fn warning(code: &'static str, message: impl Into<String>, span: Span) -> Self {
        Diagnostic { severity: Severity::Warning, ..Self::error(code, message, span) }
    }

    /// Adds a note at the position.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a hint on how to resolve it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds a hint, if there is one.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }

    /// Adds a further position.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.others.push((span, label.into()));
        self
    }
}

/// Formats diagnostics for a terminal: each with its file, line and column, and the position underlined.
pub fn render(diagnostics: &[Diagnostic], files: &[SourceFile], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = visible(&diagnostic.message);
        let labels: Vec<String> = std::iter::once(&diagnostic.label)
            .chain(diagnostic.others.iter().map(|(_, label)| label))
            .map(|label| visible(label))
            .collect();
        let helps: Vec<String> = diagnostic.help.iter().map(|help| visible(help)).collect();
        let mut group = level
            .primary_title(message.as_str())
            .id(diagnostic.code)
            .elements(Vec::<annotate_snippets::Message<'_>>::new());
        let mut spans: Vec<(&Span, AnnotationKind, &str)> =
            vec![(&diagnostic.span, AnnotationKind::Primary, labels[0].as_str())];
        for ((span, _), label) in diagnostic.others.iter().zip(&labels[1..]) {
            spans.push((span, AnnotationKind::Context, label));
        }
        let mut shown: Vec<usize> = Vec::new();
        for (span, ..) in &spans {
            if !shown.contains(&span.file) {
                shown.push(span.file);
            }
        }
        for file in shown {
            let Some(source) = files.get(file) else { continue };
            let annotations =
                spans.iter().filter(|(span, ..)| span.file == file).map(|(span, kind, label)| {
                    let annotation = kind.span(clamp(&source.text, &span.range));
                    if label.is_empty() { annotation } else { annotation.label(*label) }
                });
            group = group.element(
                Snippet::source(source.text.as_str()).path(&*source.name).fold(true).annotations(annotations),
            );
        }
        for help in &helps {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let report: [Group<'_>; 1] = [group];
        out.push_str(&renderer.render(&report));
        out.push_str("\n\n");
    }
    out
}

/// Limits a range to the text and to character boundaries.
fn clamp(text: &str, range: &Range<usize>) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(range.start);
    start..boundary(range.end).max(start)
}

/// Replaces characters that would move the cursor of a terminal: files are untrusted.
fn visible(text: &str) -> String {
    text.chars()
        .map(
            |letter| {
                if letter != '\n' && crate::text::escape::is_disruptive(letter) { '\u{fffd}' } else { letter }
            },
        )
        .collect()
}
