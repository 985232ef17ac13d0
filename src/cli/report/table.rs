//! The report for a terminal.

use super::Page;
use super::sections::{Cell, Section};
use crate::cli::{table, visible};

/// A text in a table is cut to so many characters.
const WIDEST: usize = 60;

/// Draws it.
pub fn write(page: &Page) -> String {
    let document = page.document();
    let mut lines: Vec<String> = document.facts.iter().map(|line| visible(line)).collect();
    for section in &document.sections {
        lines.push(String::new());
        lines.push(section.title.to_uppercase());
        if section.rows.is_empty() {
            lines.push("  none".to_owned());
            continue;
        }
        lines.push(visible(&section.intro));
        lines.push(String::new());
        lines.extend(draw(section));
    }
    lines.push(String::new());
    lines.push("NOT SEEN".to_owned());
    lines.extend(document.blind.iter().map(|line| format!("  {}", visible(line))));
    lines.push(String::new());
    lines.join("\n")
}

fn draw(section: &Section) -> Vec<String> {
    let mut drawn = table::table(section.head);
    for row in &section.rows {
        drawn.add_row(row.iter().map(cell));
    }
    drawn.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => short(text),
        Cell::Number(0) => "-".to_owned(),
        Cell::Number(number) => crate::cli::scan::summary::grouped(*number),
        Cell::Texts(texts) if texts.is_empty() => "-".to_owned(),
        Cell::Texts(texts) => texts.iter().map(|text| short(text)).collect::<Vec<_>>().join("\n"),
    }
}

fn short(text: &str) -> String {
    let text = visible(text);
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
