//! Replaces the client in a build without the feature `kafka`.

use super::{Cluster, Error};

pub const ENABLED: bool = false;

pub fn check(_: &Cluster) -> Result<(), Error> {
    Err(Error::Disabled)
}
