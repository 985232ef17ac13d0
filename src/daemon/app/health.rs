//! The health checks of the daemon.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::daemon::pipeline::Status;
use crate::daemon::server::{Health, HealthCheck};

/// Time without a heartbeat after which the pipeline counts as stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

impl Health for Status {
    fn checks(&self) -> Vec<HealthCheck> {
        let is_stalled = self.heartbeat_age() > STALL_TIMEOUT;
        let store_problem = if self.store_removed.load(Ordering::Relaxed) {
            Some("the store was removed while pullwatch was running")
        } else if self.store_stalled.load(Ordering::Relaxed) {
            Some("store is not accepting writes: the disk is full, or another process holds a lock")
        } else {
            None
        };
        let mut problems = self.source_problems();
        problems.extend(self.degradations());
        let sinks = self.sink_problems();
        let check = |name: &str, ok: bool, reason: &str, is_liveness: bool| HealthCheck {
            name: name.to_owned(),
            ok,
            reason: if ok { String::new() } else { reason.to_owned() },
            is_liveness,
            is_critical: is_liveness || name == "store",
        };
        vec![
            check("pipeline", !is_stalled, "pipeline loop stalled", true),
            check("store", store_problem.is_none(), store_problem.unwrap_or_default(), false),
            check(
                "rules",
                !self.rules_stale.load(Ordering::Relaxed),
                "the rule files on disk are invalid; the previous rules are in use",
                false,
            ),
            check(
                "configuration",
                !self.config_stale.load(Ordering::Relaxed),
                "the configuration file is invalid; the previous configuration is in use",
                false,
            ),
            check("sinks", sinks.is_empty(), &sinks.join("; "), false),
            check("sources", problems.is_empty(), &problems.join("; "), false),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server may answer before the pipeline's first iteration, whose thread may not have been scheduled yet.
    #[test]
    fn a_pipeline_that_has_not_begun_is_not_stalled() {
        let checks = Status::default().checks();
        let pipeline = checks.iter().find(|check| check.name == "pipeline").unwrap();
        assert!(pipeline.ok && pipeline.is_liveness, "{}", pipeline.reason);
    }
}
