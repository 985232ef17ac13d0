//! Where alerts go. Each sink reads the store with a cursor of its own, so that a slow or dead one holds up nobody.
//!
//! A cursor moves when alerts were delivered, never before: after a crash some may be delivered again, and none is left
//! out. Whoever takes them tells a repeat by its id.

pub mod lines;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::rules::ast::Priority;
use crate::store::{self, Cursor, Reader, Start, StoredAlert};

/// So many alerts are read at once.
const BATCH: u32 = 256;

/// Which alerts a sink is for.
#[derive(Clone, Debug)]
pub struct Filter {
    /// At least as bad as this.
    pub priority: Priority,
    only: Option<GlobSet>,
    not: GlobSet,
}

impl Filter {
    /// Alerts of rules whose name one of `only` fits (all, where there are none) and none of `not`.
    ///
    /// # Errors
    /// When one is no pattern.
    pub fn new(priority: Priority, only: &[String], not: &[String]) -> Result<Self, globset::Error> {
        let set = |patterns: &[String]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                set.add(Glob::new(pattern)?);
            }
            set.build()
        };
        Ok(Filter { priority, only: if only.is_empty() { None } else { Some(set(only)?) }, not: set(not)? })
    }

    /// Whether an alert is for this sink.
    pub fn takes(&self, alert: &StoredAlert) -> bool {
        alert.priority <= self.priority
            && self.only.as_ref().is_none_or(|only| only.is_match(&alert.rule))
            && !self.not.is_match(&alert.rule)
    }
}

/// How long to wait after a failure.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// After the first.
    pub initial: Duration,
    /// At most.
    pub max: Duration,
}

/// What delivers.
pub trait Deliver: Send + 'static {
    /// Delivers these alerts, all or none of them as far as it can tell.
    ///
    /// # Errors
    /// Then they are tried again.
    fn deliver(&mut self, alerts: &[StoredAlert]) -> std::io::Result<()>;
}

/// A sink at work.
pub struct Sink {
    /// Its name.
    pub name: String,
    /// Which alerts it is for.
    pub filter: Filter,
    /// How it waits.
    pub retry: Retry,
    /// What delivers.
    pub target: Box<dyn Deliver>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sink({})", self.name)
    }
}

impl Sink {
    /// Delivers until it is told to stop, and then what is there already.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn run(
        mut self,
        dir: &Path,
        mut news: watch::Receiver<i64>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), store::Error> {
        let cursor = Cursor::open(dir, &self.name, Start::Oldest)?;
        let reader = Reader::open(dir)?;
        let mut wait = self.retry.initial;
        loop {
            let is_last = *stop.borrow();
            let delivered = tokio::task::block_in_place(|| self.catch_up(&cursor, &reader))?;
            if is_last {
                return Ok(());
            }
            if delivered {
                wait = self.retry.initial;
                tokio::select! {
                    changed = news.changed() => {
                        if changed.is_err() {
                            // The pipeline is gone: whoever stops sinks does so now.
                            let _ = stop.changed().await;
                        }
                    }
                    _ = stop.changed() => {}
                }
            } else {
                self.metrics.delivery_retried(&self.name);
                let pause = wait.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => {}
                }
                wait = (wait * 2).min(self.retry.max);
            }
        }
    }

    /// Delivers what is there. False where it failed.
    fn catch_up(&mut self, cursor: &Cursor, reader: &Reader) -> Result<bool, store::Error> {
        let mut at = cursor.load()?;
        loop {
            let alerts = reader.after(at, BATCH)?;
            let Some(last) = alerts.last().map(|alert| alert.seq) else { return Ok(true) };
            let wanted: Vec<StoredAlert> =
                alerts.into_iter().filter(|alert| self.filter.takes(alert)).collect();
            if !wanted.is_empty() {
                if let Err(error) = self.target.deliver(&wanted) {
                    tracing::error!(sink = self.name, %error, "alerts could not be delivered; trying again");
                    self.metrics.delivery_failed(&self.name);
                    return Ok(false);
                }
                self.metrics.delivered(&self.name, wanted.len() as u64);
            }
            cursor.save(last)?;
            at = last;
        }
    }
}
