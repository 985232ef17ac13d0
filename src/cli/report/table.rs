//! The report as tables for a terminal.

use super::Page;
use super::sections::{Cell, Section};
use crate::cli::{table, visible};

/// Cells are cut to this many characters.
const MAX_CELL_WIDTH: usize = 60;

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
        lines.extend(section_lines(section));
    }
    lines.push(String::new());
    lines.push("LIMITATIONS".to_owned());
    lines.extend(document.limitations.iter().map(|line| format!("  {}", visible(line))));
    lines.push(String::new());
    lines.join("\n")
}

fn section_lines(section: &Section) -> Vec<String> {
    let mut table = table::table(section.head);
    for row in &section.rows {
        table.add_row(row.iter().map(cell));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
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
    match text.char_indices().nth(MAX_CELL_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
