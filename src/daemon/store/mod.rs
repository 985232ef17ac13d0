//! Position, alerts and state in one SQLite file, in one transaction a batch.
//!
//! A kill at any instant leaves all of a batch or nothing of it: what a source handed on, what was learned from it and what
//! it made alert. So nothing is lost, and nothing is there twice.
//!
//! Four doors lead here. [`Store`] is the daemon's: the only one that writes batches and that makes room, and there is one a
//! directory, held by a lock. [`Reader`] looks, also from another process, and never waits for the daemon nor holds it up.
//! [`Cursor`] is a sink's: how far it has delivered. [`acknowledge`] is a person's.
//!
//! What comes in is redacted already; the store shows nothing and escapes nothing. All texts in it may be an attacker's, and the
//! file may have been damaged: what comes out is read with care, and nothing here panics on it. What must never come in is an
//! event, a rule or a terminal.

mod acknowledgements;
mod cursor;
mod dir;
mod error;
mod lazy;
mod open;
mod read;
mod retain;
mod schema;
mod write;

pub use acknowledgements::{Ack, acknowledge};
pub use cursor::{Cursor, Start};
pub use dir::default_dir;
pub use error::Error;
pub(crate) use lazy::LazyReader;
pub use open::{Opened, Options};
pub use read::{Filter, IdPrefix, Listed, Match, Reader, SinkStats, Stats};
pub use retain::{Retained, Retention};
pub use write::{Batch, Committed, StateEntry, Store, StoreSize};

pub use crate::detection::state::StateChange;

use crate::detection::alert::{AlertId, NewAlert, StoredAlert};
