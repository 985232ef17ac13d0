//! The result of a scan.

use super::reading::ReadSummary;
use super::tally::Tally;

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Report {
    pub tally: Tally,
    /// Inputs that could not be read completely, each with the reason.
    pub failures: Vec<String>,
    /// Names of empty inputs.
    pub empty: Vec<String>,
    /// The reader of standard output closed the pipe; the rest of the input was not read.
    pub pipe_closed: bool,
}

impl Report {
    pub(super) fn add(&mut self, reading: ReadSummary) {
        self.tally.bytes += reading.bytes;
        self.failures.extend(reading.failures);
        self.empty.extend(reading.empty);
    }
}
