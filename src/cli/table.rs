//! Tables in the output of commands.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

/// Creates a table without lines between cells, with these column headings.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().copied());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// Prints a table to standard output, without trailing blanks.
pub fn print(table: &Table) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
