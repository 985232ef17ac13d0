//! `pullwatch rules fields`.

use std::process::ExitCode;

use clap::Args;

use crate::detection::rules::fields::{self, Argument};

/// List the fields available in rules, with type and description
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules fields                       all fields
  pullwatch rules fields binding               fields with 'binding' in their name or description")]
pub struct Fields {
    /// Only fields that contain this text in their name or description
    text: Option<String>,
}

impl Fields {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let wanted = self.text.unwrap_or_default().to_ascii_lowercase();
        let mut table = super::table(&["FIELD", "TYPE", "DESCRIPTION"]);
        let mut found = false;
        for field in fields::all().chain(fields::of_correlations()) {
            if !field.name.to_ascii_lowercase().contains(&wanted)
                && !field.reads.to_ascii_lowercase().contains(&wanted)
            {
                continue;
            }
            found = true;
            let name = match field.argument {
                Argument::None => field.name.to_owned(),
                Argument::Index => format!("{}[i]", field.name),
                Argument::Key => format!("{}[key]", field.name),
            };
            table.add_row([&name, field.kind.name(), field.reads]);
        }
        anyhow::ensure!(found, "no field matches `{wanted}`: run `pullwatch rules fields` for all fields");
        super::print(&table)?;
        Ok(ExitCode::SUCCESS)
    }
}
