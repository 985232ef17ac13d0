//! State learned by `run`, for commands that start from it.

use std::path::Path;

use crate::daemon::store::StoreReader;
use crate::detection::detector::Detector;
use crate::detection::registry::{ClusterState, TrustedReader};
use crate::detection::state::kind;

/// Starts from the learned state of a directory, if there is one.
pub fn start(detector: Detector, dir: Option<&Path>) -> anyhow::Result<Detector> {
    let Some(dir) = dir else { return Ok(detector) };
    let reader = StoreReader::open(dir)?;
    let mut state = ClusterState::default();
    for kind in [kind::SECRET, kind::POD, kind::ROLE, kind::NAMESPACE, kind::COPY, kind::READER, kind::NODE] {
        for (key, value) in reader.state(kind)? {
            state.restore(kind, &key, &value);
        }
    }
    let decisions = reader.state(kind::TRUST)?.into_iter();
    state.readers_mut().set_trusted(decisions.filter_map(|(key, value)| TrustedReader::decode(&key, &value)));
    Ok(detector.starting_from(state))
}
