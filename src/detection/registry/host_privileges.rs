//! Properties that give a pod rights over its node: settings with which its processes can act as root of the host or read data of other
//! pods, and host paths from which code is run.
//!
//! Takes a member of a written object and returns the name of the right that it gives. The paths are in `host_paths`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::literals::Literals;

const HOST_PID: &str = "hostPID";

/// A right that only matters together with `hostPID`: without it, a process can only trace those of its own pod.
const TRACE: &str = "SYS_PTRACE";

/// Capabilities with which a process can escape its container: they allow mounting file systems, opening files by their handles, loading
/// code into the kernel, or reading its memory.
const CAPABILITIES: [&str; 7] =
    ["ALL", "BPF", "DAC_READ_SEARCH", "SYS_ADMIN", "SYS_MODULE", TRACE, "SYS_RAWIO"];

/// Text that every object with such a right contains, with the letters that an escape may spell.
const WORDS: [&str; 11] = [
    "privileged",
    "hostP",
    "procMount",
    "\"add\"",
    "capabilities/add",
    "\"local\"",
    "spec/local",
    "\\u004",
    "\\u005",
    "\\u006",
    "\\u007",
];

/// Compiling constants does not fail; without a searcher every object may have one.
static SEARCHER: LazyLock<Option<Literals>> = LazyLock::new(|| Literals::new(&WORDS));

/// Returns whether an object can have such a right at all.
pub(super) fn could_have_host_privileges(object: Raw<'_>) -> bool {
    SEARCHER.as_ref().is_none_or(|searcher| searcher.find(object.bytes(), 0).is_some())
}

/// Returns the right that a member gives, by its key and that of the enclosing object.
pub(super) fn privilege_of(parent: &[u8], key: &[u8], value: Raw<'_>) -> Option<&'static str> {
    match (parent, key, value.kind()) {
        (b"securityContext", b"privileged", Type::Scalar) if value.bytes() == b"true" => Some("privileged"),
        (b"windowsOptions", b"hostProcess", Type::Scalar) if value.bytes() == b"true" => Some("hostProcess"),
        (_, b"hostPID", Type::Scalar) if value.bytes() == b"true" => Some(HOST_PID),
        (_, b"procMount", Type::String) if *value.text() == *b"Unmasked" => Some("procMount"),
        (b"capabilities", b"add", Type::String) => capability(&value.text()),
        _ => None,
    }
}

/// Container runtimes accept capabilities in any case, and some also with the kernel's prefix.
fn capability(text: &[u8]) -> Option<&'static str> {
    let text = text.trim_ascii();
    let name = match text.split_at_checked(4) {
        Some((prefix, name)) if prefix.eq_ignore_ascii_case(b"CAP_") => name,
        _ => text,
    };
    CAPABILITIES.into_iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Returns the rights of an object that count, sorted.
pub(super) fn effective_privileges(found: &BTreeSet<&'static str>) -> impl Iterator<Item = &'static str> {
    let can_trace = found.contains(HOST_PID);
    found.iter().copied().filter(move |name| *name != TRACE || can_trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_count_in_every_spelling_of_container_runtimes() {
        for (text, expected) in [
            ("SYS_ADMIN", Some("SYS_ADMIN")),
            ("sys_admin", Some("SYS_ADMIN")),
            ("CAP_SYS_MODULE", Some("SYS_MODULE")),
            ("Cap_Bpf", Some("BPF")),
            ("all", Some("ALL")),
            ("NET_ADMIN", None),
            ("SYS_ADMINS", None),
            ("CAP_", None),
            ("", None),
        ] {
            assert_eq!(capability(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_right_to_trace_counts_beside_the_processes_of_the_host() {
        let effective = |found: &[&'static str]| {
            effective_privileges(&found.iter().copied().collect()).collect::<Vec<_>>()
        };
        assert!(effective(&[TRACE]).is_empty());
        assert_eq!(effective(&[HOST_PID, TRACE]), [TRACE, HOST_PID]);
    }
}
