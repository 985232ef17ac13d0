//! Whether an identity of the cluster is used by a program of its own.

use super::catalog::ExpectedPrograms;
use super::read::program;
use crate::detection::audit::event::{Event, Member};
use crate::detection::registry::borrowed_text;

/// Returns whether a component of the control plane, or a service account of the catalog of platform controllers, sends a request with
/// a program of its own; none for any other user.
pub(crate) fn runs_own_program(event: &mut Event<'_>) -> Option<bool> {
    let user = event.get(Member::User)?;
    let name = borrowed_text(user.get("username")).filter(|name| name.starts_with("system:"))?;
    // Most users of the cluster are neither: the program of their requests is not read.
    let expected = ExpectedPrograms::of(&name)?;
    // Whom the apiserver has authenticated has a group at least; test events may have none, and no program.
    if event.get(Member::UserAgent).is_none() && user.get("groups").is_none() && !event.is_truncated() {
        return Some(true);
    }
    Some(expected.include(&program(event).unwrap_or_default()))
}
