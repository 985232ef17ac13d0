//! Keeps alerts, source positions and learned state in one SQLite file.
//!
//! Takes batches of redacted alerts with their position and state changes, each in one transaction, and returns them to sinks, commands and
//! the next start. After a kill at any instant, either all of a batch is stored or nothing of it, so no alert is lost, and none is stored
//! twice. Events, rules and anything that is not redacted must never enter.
//!
//! There are four interfaces. [`Store`] belongs to the daemon: only it writes batches and deletes alerts, and a lock allows one per
//! directory. [`StoreReader`] reads, even from another process, and neither waits for the daemon nor blocks it. [`Cursor`] stores how far a
//! sink has delivered. [`acknowledge`] marks alerts as seen by a person.
//!
//! An attacker may choose any text in the file, and the file may be damaged, so values are checked when they are read, and nothing here
//! panics on them. Text is not escaped here; that is up to the code that displays it.

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
