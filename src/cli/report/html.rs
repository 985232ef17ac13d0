//! The report as a self-contained HTML page: no scripts, no external resources, printable.

use std::fmt::Write as _;

use super::Page;
use super::sections::{Cell, Section};
use crate::cli::scan::summary::grouped;
use crate::cli::visible;

const STYLE: &str = include_str!("style.css");

/// Renders the page. All elements are closed, so that it is well-formed XML too.
pub fn write(page: &Page) -> String {
    let document = page.document();
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\" />\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n\
         <meta name=\"color-scheme\" content=\"light dark\" />\n\
         <title>Reads of registry credentials</title>\n<style>\n",
    );
    out.push_str(STYLE);
    out.push_str("</style>\n</head>\n<body>\n<h1>Reads of registry credentials</h1>\n");
    for line in &document.facts {
        element(&mut out, "p", line);
    }
    for section in &document.sections {
        render_section(&mut out, section);
    }
    out.push_str("<section>\n<h2>Limitations</h2>\n<ul>\n");
    for line in &document.limitations {
        element(&mut out, "li", line);
    }
    out.push_str("</ul>\n</section>\n</body>\n</html>\n");
    out
}

fn render_section(out: &mut String, section: &Section) {
    out.push_str("<section>\n");
    element(out, "h2", section.title);
    if section.rows.is_empty() {
        out.push_str("<p>None.</p>\n</section>\n");
        return;
    }
    element(out, "p", &section.intro);
    out.push_str("<div class=\"wide\">\n<table>\n<thead>\n<tr>");
    for title in section.head {
        out.push_str("<th scope=\"col\">");
        push_text(out, title);
        out.push_str("</th>");
    }
    out.push_str("</tr>\n</thead>\n<tbody>\n");
    for row in &section.rows {
        out.push_str("<tr>");
        for cell in row {
            render_cell(out, cell);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

fn render_cell(out: &mut String, cell: &Cell) {
    match cell {
        Cell::Number(0) => out.push_str("<td class=\"number\">–</td>"),
        Cell::Number(number) => {
            out.push_str("<td class=\"number\">");
            out.push_str(&grouped(*number));
            out.push_str("</td>");
        }
        Cell::Text(text) => {
            out.push_str("<td><bdi>");
            push_text(out, text);
            out.push_str("</bdi></td>");
        }
        Cell::Texts(texts) => {
            out.push_str("<td>");
            for (at, text) in texts.iter().enumerate() {
                out.push_str(if at == 0 { "<bdi>" } else { "<br /><bdi>" });
                push_text(out, text);
                out.push_str("</bdi>");
            }
            out.push_str("</td>");
        }
    }
}

fn element(out: &mut String, name: &str, text: &str) {
    // Writing to a String does not fail.
    let _ = write!(out, "<{name}>");
    push_text(out, text);
    let _ = writeln!(out, "</{name}>");
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
