//! What is done now and then: gauges, and room in the store.

use super::{Pipeline, now};
use crate::detector::Session;
use crate::metrics::Known;
use crate::store;

impl Pipeline {
    /// Says how much there is.
    pub(super) fn gauge(&self, session: &Session<'_>) -> Result<(), store::Error> {
        let knowledge = session.knowledge();
        let sizes = knowledge.sizes();
        for (known, size) in [
            (Known::Credentials, sizes.credentials),
            (Known::OtherSecrets, sizes.other_secrets),
            (Known::Pods, sizes.pods),
            (Known::Roles, sizes.roles),
            (Known::Namespaces, sizes.namespaces),
        ] {
            self.metrics.known(known, size);
        }
        for (key, time) in knowledge.credentials_with_times() {
            if let (Some((namespace, secret)), Some(time)) = (secret_name(key.as_bytes()), time) {
                self.metrics.rotated(namespace, secret, time);
            }
        }
        match self.store.holds() {
            Ok(holds) => self.metrics.store_holds(holds.bytes, holds.alerts),
            Err(error) if error.is_transient() => self.metrics.store_failed(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes what is too old or too much, a small step. Whether there is more to do.
    pub(super) fn retain(&mut self) -> Result<bool, store::Error> {
        match self.store.retain(&self.retention, now()) {
            Ok(retained) => {
                if retained.undelivered > 0 {
                    tracing::error!(
                        alerts = retained.undelivered,
                        "alerts were removed to make room before every sink had them; raise store.max_size or mend the sink"
                    );
                }
                Ok(retained.more)
            }
            Err(error) if error.is_transient() => {
                self.metrics.store_failed();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Namespace and name of a secret by its key in the knowledge.
pub(super) fn secret_name(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}
