//! `pullwatch readers`: shows what identities read, and stores decisions to trust one, whether the daemon is running or not.

mod export;
mod list;
mod show;
mod trust;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;

use super::alerts::StateDir;
use crate::detection::audit::time;
use crate::detection::registry::{ReaderProfiles, TrustedReader};
use crate::detection::state::kind;

/// List, show and trust identities that read secrets
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  pullwatch readers list                       all identities, those that differed last first
  pullwatch readers show system:serviceaccount:shop:operator
                                               everything that is known about one identity
  pullwatch readers trust system:serviceaccount:shop:operator --why 'reviewed in CHG-1234'
                                               do not report its previous behavior again
  pullwatch readers export > trusted.yaml      the decisions as a rule file")]
pub enum Readers {
    List(list::List),
    Show(show::Show),
    Trust(trust::Trust),
    Distrust(trust::Distrust),
    Export(export::Export),
}

impl Readers {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Readers::List(list) => list.run(),
            Readers::Show(show) => show.run(),
            Readers::Trust(trust) => trust.run(),
            Readers::Distrust(distrust) => distrust.run(),
            Readers::Export(export) => export.run(),
        }
    }
}

/// The profiles and decisions in a store.
struct StoredReaders {
    profiles: ReaderProfiles,
    trusted: BTreeMap<String, TrustedReader>,
}

impl StoredReaders {
    fn read(state: &StateDir) -> anyhow::Result<Self> {
        let reader = state.reader()?;
        let mut profiles = ReaderProfiles::default();
        for (key, value) in reader.state(kind::READER)? {
            profiles.restore(&key, &value);
        }
        let decisions = reader.state(kind::TRUST)?.into_iter();
        let trusted = decisions.filter_map(|(key, value)| TrustedReader::decode(&key, &value)).collect();
        Ok(StoredReaders { profiles, trusted })
    }
}

/// A day and hour in UTC, or `-`.
fn when(time: Option<i64>) -> String {
    time.map_or_else(|| "-".to_owned(), time::utc_seconds)
}

/// The display name of an identity.
fn name(user: &str, impersonated: Option<&str>) -> String {
    let user = if user.is_empty() { "(unknown)" } else { user };
    impersonated.map_or_else(|| user.to_owned(), |other| format!("{user} as {other}"))
}
