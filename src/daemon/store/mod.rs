//! Keeps alerts, source positions and learned state in one SQLite file.
//!
//! In: batches of redacted alerts with the position and the state changes that belong to them, each in one transaction. Out: the
//! same, for sinks, commands and the next start. A kill at any instant leaves all of a batch or nothing of it: so no alert is
//! lost, and none is stored twice. What must never enter: events, rules, anything that is not redacted.
//!
//! There are four ways in. [`Store`] belongs to the daemon: it alone writes batches and deletes alerts, and a lock allows one per
//! directory. [`StoreReader`] reads, also from another process, and neither waits for the daemon nor blocks it. [`Cursor`] keeps how far a
//! sink has delivered. [`acknowledge`] marks alerts as seen by a person.
//!
//! All texts in the file may be chosen by an attacker, and the file may be damaged: values are checked when they are read, and
//! nothing here panics on them. Nothing is escaped here; that is up to the code that shows a text.

mod acknowledgements;
mod batch;
mod cursor;
mod dir;
mod error;
mod lazy;
mod limit;
mod open;
mod read;
mod retain;
mod schema;
mod trust;
mod write;

pub use acknowledgements::{Ack, acknowledge};
pub use batch::{Batch, Committed, StateEntry, Undelivered};
pub use cursor::{Cursor, SinkStart};
pub use dir::default_dir;
pub use error::Error;
pub(crate) use lazy::LazyReader;
pub use open::{Opened, Options};
pub use read::{Filter, IdMatch, IdPrefix, Listed, StoreReader};
pub use retain::Retention;
pub use trust::set_trust;
pub use write::Store;

pub use crate::detection::state::StateChange;

use crate::detection::alert::{AlertId, StoredAlert};
