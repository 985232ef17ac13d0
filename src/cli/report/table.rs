//! The report as text for a terminal.
//!
//! Names come last in a row and are never cut or broken, so that they can be copied; numbers and times before them have columns.
//! Details are below their row, broken between names only.

use super::Page;
use super::sections::{Cell, ReportEntry, Section};
use crate::cli::scan::summary::grouped;
use crate::cli::{table, visible};
use crate::detection::history::REPLACE_SECRET;

/// Width of the output if it is not a terminal, and maximum width of sentences on wider terminals.
const DEFAULT_WIDTH: usize = 100;

/// Maximum length of a name in details, in characters; a client can send a long user agent.
const MAX_DETAIL_WIDTH: usize = 120;

/// Number of names in a detail; the other formats show more.
const MAX_NAMES: usize = 12;

pub fn write(page: &Page) -> String {
    let terminal_width = table::table(&[]).width().map(|width| usize::from(width).max(40));
    let width = terminal_width.unwrap_or(DEFAULT_WIDTH);
    let text_width = width.min(DEFAULT_WIDTH);
    let document = page.document();
    let mut out = String::new();
    for line in &document.answer {
        wrap(&mut out, "", words(line), text_width);
    }
    out.push('\n');
    for line in &document.facts {
        wrap(&mut out, "", words(line), text_width);
    }
    for section in &document.sections {
        blank_line(&mut out);
        push_line(&mut out, &section.title.to_uppercase());
        if section.entries.is_empty() {
            push_line(&mut out, "  none");
            continue;
        }
        wrap(&mut out, "", words(&section.intro), text_width);
        out.push('\n');
        render_section(&mut out, section, width, terminal_width.is_some());
    }
    blank_line(&mut out);
    push_line(&mut out, "LIMITATIONS");
    for line in &document.limitations {
        wrap(&mut out, "  ", words(line), text_width);
    }
    out
}

fn render_section(out: &mut String, section: &Section, width: usize, is_terminal: bool) {
    let head: Vec<String> = section.head.iter().map(|head| (*head).to_owned()).collect();
    let rows: Vec<Vec<String>> =
        section.entries.iter().map(|entry| entry.cells.iter().map(cell).collect()).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|at| {
            let cells = rows.iter().chain([&head]).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        })
        .collect();
    let is_number: Vec<bool> = (0..head.len())
        .map(|at| section.entries.iter().all(|entry| matches!(entry.cells.get(at), Some(Cell::Number(_)))))
        .collect();
    let line = |cells: &[String], name: &str| {
        let mut text = String::new();
        for ((cell, width), &is_number) in cells.iter().zip(&widths).zip(&is_number) {
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if is_number { (&*blanks, "") } else { ("", &*blanks) };
            text.extend(["  ", before, cell, after]);
        }
        text.extend(["  ", name]);
        text
    };
    let row_width = widths.iter().map(|width| width + 2).sum::<usize>() + 2;
    push_line(out, &line(&head, section.name));
    for (entry, cells) in section.entries.iter().zip(&rows) {
        let name = visible(&entry.name);
        if !is_terminal || row_width + name.chars().count() <= width {
            push_line(out, &line(cells, &name));
        } else {
            // A separate line rather than a break within the name. Not in a file or a pipe, so that grep works.
            push_line(out, &line(cells, ""));
            push_line(out, &format!("    {name}"));
        }
        if section.has_details {
            render_details(out, entry, width);
            out.push('\n');
        }
    }
    if section.entries.iter().any(|entry| entry.rotation.is_some()) {
        push_line(out, "  Then, for each secret:");
        for line in REPLACE_SECRET {
            push_line(out, &format!("    {line}"));
        }
    }
}

fn render_details(out: &mut String, entry: &ReportEntry, width: usize) {
    const INDENT: &str = "      ";
    for (title, texts) in entry.details.iter().filter(|(_, texts)| !texts.is_empty()) {
        let mut names: Vec<String> = texts.iter().take(MAX_NAMES).map(|text| short(text)).collect();
        if texts.len() > MAX_NAMES {
            names.push(format!("and {} more", texts.len() - MAX_NAMES));
        }
        let last = names.len() - 1;
        for name in &mut names[..last] {
            name.push(',');
        }
        wrap(out, INDENT, [format!("{title}:")].into_iter().chain(names), width);
    }
    if let Some(rotation) = &entry.rotation {
        let kind = if rotation.link.is_some() { format!(" ({})", rotation.kind) } else { String::new() };
        wrap(out, INDENT, words(&format!("rotate{kind}: {}", rotation.step)), width.min(DEFAULT_WIDTH));
        for text in [rotation.command, rotation.link].into_iter().flatten() {
            push_line(out, &format!("{INDENT}  {text}"));
        }
    }
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => visible(text),
        Cell::Number(0) => "-".to_owned(),
        Cell::Number(number) => grouped(*number),
    }
}

fn short(text: &str) -> String {
    let text = visible(text);
    match text.char_indices().nth(MAX_DETAIL_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn words(line: &str) -> impl Iterator<Item = String> {
    visible(line).split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Appends pieces, separated by spaces, in lines of at most `width` characters; a longer piece gets its own line. Lines after the first are
/// indented further if the first is indented.
fn wrap(out: &mut String, indent: &str, pieces: impl Iterator<Item = String>, width: usize) {
    let deeper = if indent.is_empty() { String::new() } else { format!("{indent}  ") };
    let mut line = String::from(indent);
    let mut len = indent.len();
    let mut is_empty = true;
    for piece in pieces {
        let piece_len = piece.chars().count();
        if !is_empty && len + 1 + piece_len > width {
            push_line(out, &line);
            line.clone_from(&deeper);
            len = deeper.len();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
            len += 1;
        }
        line.push_str(&piece);
        len += piece_len;
        is_empty = false;
    }
    push_line(out, &line);
}

fn push_line(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Appends an empty line, unless there is one.
fn blank_line(out: &mut String) {
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
}
