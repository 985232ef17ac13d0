//! What is wrong with a rule file, and where.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A rule file in memory.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its name, for messages.
    pub name: Arc<str>,
    /// Its content.
    pub text: String,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The rule set does not load.
    Error,
    /// It loads, but may not do what its author thinks.
    Warning,
}

/// A range of bytes in one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the file.
    pub file: usize,
    /// Bytes in it.
    pub range: Range<usize>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name for it, in kebab case.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What stands there, or should.
    pub label: String,
    /// Other places that explain it.
    pub others: Vec<(Span, String)>,
    /// What to do about it.
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

    /// With a label at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With advice, if there is any.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }

    /// With another place.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.others.push((span, label.into()));
        self
    }
}

/// Shows diagnostics for people: each with its file, line and column, and the place underlined.
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

/// A range that lies in the text, on character boundaries.
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

/// A rule file may come from anybody: what it says must not move the cursor.
fn visible(text: &str) -> String {
    text.chars()
        .map(
            |letter| {
                if letter != '\n' && crate::text::escape::is_disruptive(letter) { '\u{fffd}' } else { letter }
            },
        )
        .collect()
}
