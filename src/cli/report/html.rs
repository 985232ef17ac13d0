//! The report as a self-contained HTML page: no scripts, no external resources, printable. The only links are those of
//! [`Rotation`](crate::detection::history::Rotation), which are constants.

use std::fmt::Write as _;

use super::Page;
use super::sections::{Cell, ReportEntry, Section};
use crate::cli::scan::summary::grouped;
use crate::cli::visible;
use crate::detection::history::REPLACE_SECRET;

const STYLE: &str = include_str!("style.css");

/// Renders the page. All elements are closed, so that it is well-formed XML too.
pub fn write(page: &Page) -> String {
    let document = page.document();
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"color-scheme\" content=\"light dark\" />\n\
         <meta name=\"referrer\" content=\"no-referrer\" />\n\
         <title>Exposed registry credentials</title>\n<style>\n",
    );
    out.push_str(STYLE);
    out.push_str("</style>\n</head>\n<body>\n<main>\n<h1>Exposed registry credentials</h1>\n");
    for (at, line) in document.answer.iter().enumerate() {
        out.push_str(if at == 0 { "<p class=\"answer\">" } else { "<p>" });
        push_text(&mut out, line);
        out.push_str("</p>\n");
    }
    out.push_str("<div class=\"facts\">\n");
    for line in &document.facts {
        element(&mut out, "p", line);
    }
    out.push_str("</div>\n");
    for section in &document.sections {
        render_section(&mut out, section);
    }
    out.push_str("<section>\n<h2>Limitations</h2>\n<ul>\n");
    for line in &document.limitations {
        element(&mut out, "li", line);
    }
    out.push_str("</ul>\n</section>\n</main>\n</body>\n</html>\n");
    out
}

fn render_section(out: &mut String, section: &Section) {
    out.push_str("<section>\n");
    element(out, "h2", section.title);
    if section.entries.is_empty() {
        out.push_str("<p>None.</p>\n</section>\n");
        return;
    }
    element(out, "p", &section.intro);
    let is_rotation = section.entries.iter().any(|entry| entry.rotation.is_some());
    // A list whose rows can be expanded; the steps of a rotation are always visible.
    out.push_str("<div class=\"list\">\n");
    for entry in &section.entries {
        out.push_str(if is_rotation {
            "<details class=\"entry\" open=\"open\">\n"
        } else {
            "<details class=\"entry\">\n"
        });
        render_entry(out, section, entry);
        out.push_str("</details>\n");
    }
    out.push_str("</div>\n");
    if is_rotation {
        out.push_str("<p>Then, for each secret:</p>\n<pre>");
        for (at, line) in REPLACE_SECRET.iter().enumerate() {
            out.push_str(if at > 0 { "\n" } else { "" });
            push_text(out, line);
        }
        out.push_str("</pre>\n");
    }
    out.push_str("</section>\n");
}

fn render_entry(out: &mut String, section: &Section, entry: &ReportEntry) {
    out.push_str("<summary><bdi class=\"name\">");
    push_name(out, &entry.name);
    out.push_str("</bdi>");
    for (head, cell) in section.head.iter().zip(&entry.cells) {
        let head = head.to_ascii_lowercase();
        match cell {
            Cell::Number(0) => out.push_str(" <span class=\"cell empty\"></span>"),
            Cell::Number(number) => {
                let head = if *number == 1 { head.strip_suffix('s').unwrap_or(&head) } else { &head };
                let _ = write!(out, " <span class=\"cell\"><b>{}</b> {head}</span>", grouped(*number));
            }
            Cell::Text(text) => {
                let _ = write!(out, " <span class=\"cell\">{head} ");
                push_text(out, text);
                out.push_str("</span>");
            }
        }
    }
    out.push_str("</summary>\n");
    if let Some(rotation) = &entry.rotation {
        out.push_str("<p><strong>");
        push_text(out, if rotation.link.is_some() { rotation.kind } else { "Rotate" });
        out.push_str(":</strong> ");
        push_text(out, rotation.step);
        if let Some(link) = rotation.link {
            out.push_str(" <a rel=\"noopener noreferrer\" href=\"");
            push_text(out, link);
            out.push_str("\">Instructions</a>");
        }
        out.push_str("</p>\n");
        if let Some(command) = rotation.command {
            out.push_str("<pre>");
            push_text(out, command);
            out.push_str("</pre>\n");
        }
    }
    out.push_str("<dl>\n");
    for (title, texts) in entry.details.iter().filter(|(_, texts)| !texts.is_empty()) {
        out.push_str("<dt>");
        push_text(out, title);
        out.push_str("</dt><dd>");
        for (at, text) in texts.iter().enumerate() {
            out.push_str(if at == 0 { "<bdi>" } else { "<br /><bdi>" });
            push_name(out, text);
            out.push_str("</bdi>");
        }
        out.push_str("</dd>\n");
    }
    out.push_str("</dl>\n");
}

fn element(out: &mut String, name: &str, text: &str) {
    // Writing to a String does not fail.
    let _ = write!(out, "<{name}>");
    push_text(out, text);
    let _ = writeln!(out, "</{name}>");
}

/// Appends a name, with preferred line breaks after its separators.
fn push_name(out: &mut String, name: &str) {
    for (at, part) in name.split_inclusive([':', '/']).enumerate() {
        if at > 0 {
            out.push_str("<wbr />");
        }
        push_text(out, part);
    }
}

/// Appends text without markup, control characters and bidirectional overrides.
fn push_text(out: &mut String, text: &str) {
    for letter in visible(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
}
