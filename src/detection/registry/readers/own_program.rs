//! Determines whether an identity of the cluster is used by one of its own programs.

use super::catalog::ExpectedPrograms;
use super::read::program;
use crate::detection::audit::event::{Event, Member};
use crate::detection::registry::borrowed_text;

/// Returns whether a control plane component, or a service account in the catalog of platform controllers, sends a request with one of its
/// own programs; none for any other user.
pub(crate) fn runs_own_program(event: &mut Event<'_>) -> Option<bool> {
    let user = event.get(Member::User)?;
    let name = borrowed_text(user.get("username")).filter(|name| name.starts_with("system:"))?;
    // Most users are neither, and then the program of the request is not read.
    let expected = ExpectedPrograms::of(&name)?;
    // Every authenticated user has at least one group; test events may have none, and no program.
    if event.get(Member::UserAgent).is_none() && user.get("groups").is_none() && !event.is_truncated() {
        return Some(true);
    }
    Some(expected.include(&program(event).unwrap_or_default()))
}
