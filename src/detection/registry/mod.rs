//! Registry credentials: which secrets are registry credentials, and which of them an event exposed.
//!
//! Takes audit events one by one and returns which credentials each handed over, with what certainty, and for which registries
//! ([`Exposure`]); which credentials a workload uses; which verbs on secrets a role grants; how a namespace's Pod Security changes. State
//! that later events depend on is kept in [`ClusterState`], which is bounded: types of secrets, references to them, secrets of pods, verbs
//! of roles, labels of namespaces.
//!
//! Passwords and tokens must never enter it: only hosts and user names of a docker configuration are read. This module does not depend on
//! rules.

mod certificate_request;
mod cluster_state;
mod content;
mod copies;
mod custom_references;
mod declared_nodes;
pub(crate) mod declared_objects;
mod docker_config;
mod embedded_config;
mod encodings;
mod eviction;
mod evidence;
mod exposure;
mod exposure_kind;
mod exposure_reader;
mod failed_patch;
mod findings;
mod grants;
mod host_paths;
mod host_privileges;
pub(crate) mod inventory;
mod login;
mod login_commands;
mod long_running;
mod named_passwords;
mod node_addresses;
mod node_proxy;
mod ordering;
mod patch;
mod pod_security;
mod privileges;
mod readers;
mod references;
mod replication;
mod request_info;
mod secret_view;
mod storage_classes;
mod watch_query;

pub(crate) use certificate_request::certificate_user;
pub use cluster_state::ClusterState;
pub(crate) use content::copied_configuration_keys;
pub(crate) use copies::copies;
pub(crate) use custom_references::{
    LITERAL as NAMED_LITERAL, is_custom as is_custom_group, named_by_custom_resource,
};
pub use docker_config::RegistryLogins;
pub use exposure::{Exposure, ReadScope};
pub use exposure_kind::ExposureKind;
pub(crate) use exposure_reader::selects_credential_types;
pub(crate) use grants::{
    aggregated_into, bound_role, granted_verbs, is_emptied, is_role_known, privileges, subjects,
};
pub use inventory::Inventory;
pub(crate) use node_proxy::kubelet_path;
pub(crate) use ordering::{OrderDependency, STATE_LITERALS, is_answered};
pub(crate) use pod_security::change as pod_security_change;
pub use readers::{Controller, ExpectedRead, Profile, ReaderProfiles, TrustedReader, controllers};
pub(crate) use readers::{is_interactive_agent, runs_own_program, service_account};
pub(crate) use references::{
    cloud_identities, host_paths as mounted_host_paths, host_privileges, image_hosts, pull_secrets,
    referenced_credentials,
};
pub(crate) use replication::replicated;
pub(crate) use request_info::RequestInfo;

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;
use crate::detection::audit::redact::{REDACTED, is_user_name};
use crate::text::name_patterns::NamePatterns;

fn text(raw: Option<Raw<'_>>) -> Option<String> {
    borrowed_text(raw).map(Cow::into_owned)
}

/// Like [`text`], without copying if the event contains the text verbatim.
fn borrowed_text(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    raw.and_then(Raw::string).map(|text| match text {
        Cow::Borrowed(text) => String::from_utf8_lossy(text),
        Cow::Owned(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
    })
}

/// Returns a name or path that a client chose, unless it looks like a token.
fn shown(text: String) -> String {
    if is_user_name(text.as_bytes()) { text } else { REDACTED.to_owned() }
}

/// Returns whether a value is this string, in any JSON spelling.
fn is(raw: Option<Raw<'_>>, expected: &str) -> bool {
    raw.is_some_and(|raw| {
        let bytes = raw.bytes();
        bytes.len() == expected.len() + 2 && &bytes[1..=expected.len()] == expected.as_bytes()
            || memchr::memchr(b'\\', bytes).is_some() && *raw.text() == *expected.as_bytes()
    })
}

/// Learns from an event what its own evaluation may depend on, and returns what it exposed.
pub(crate) fn observe<'e>(
    event: &mut Event<'e>,
    request: &RequestInfo<'e>,
    names: &NamePatterns,
    state: &mut ClusterState,
) -> Exposure {
    state.start_event(writer(event, request));
    if let Some(client) = node_addresses::NodeRequest::of(event) {
        state.observe_node(client, ordering::shows_nodes(request));
    }
    match &*request.resource {
        "secrets" => {
            let exposure = Exposure::of(event, request, names, Some(state));
            if state.is_counted()
                && let Some(read) = readers::Read::of(event, request, &exposure)
            {
                state.observe_read(read);
            }
            return exposure;
        }
        "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => {
            grants::learn(event, request, state);
        }
        "namespaces"
        | "nodes"
        | "selfsubjectaccessreviews"
        | "selfsubjectrulesreviews"
        | "certificatesigningrequests" => {}
        resource if copies::is_tracked(resource) => copies::learn(event, request, state),
        _ => references::learn(event, request, names, state),
    }
    Exposure::default()
}

/// Returns a hash of the sender of a request that writes objects; 0 for one that reads them.
fn writer(event: &mut Event<'_>, request: &RequestInfo<'_>) -> u64 {
    if !matches!(&*request.verb, "create" | "update" | "patch") {
        return 0;
    }
    let mut hash = Sha256::new();
    for member in [Member::User, Member::ImpersonatedUser] {
        let name = event.get(member).and_then(|user| user.get("username")).map(Raw::text).unwrap_or_default();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
    }
    let mut writer = [0; 8];
    writer.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(writer).max(1)
}

/// Applies what an event removes or replaces. Called after the evaluation, because rules see the state before the event.
pub(crate) fn learn_after_evaluation(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    state: &mut ClusterState,
) {
    exposure_reader::remove_deleted(event, request, state);
    if copies::is_tracked(&request.resource) {
        copies::remove_deleted(event, request, state);
    }
    if request.has_deleted_node(event) {
        state.remove_node(event, &request.name);
    }
    pod_security::learn(event, request, state);
}

/// Returns whether the identity of an event has itself requested the deletion of the secret that the event names.
pub(crate) fn is_of_own_deletion(
    event: &mut Event<'_>,
    request: &RequestInfo,
    state: Option<&mut ClusterState>,
) -> bool {
    request.is_about_secrets()
        && !request.name.is_empty()
        && state.is_some_and(|state| state.was_deleted_by(event, &request.namespace, &request.name))
}

/// Returns the secret that a request names, as `namespace/name`.
pub(crate) fn named_secret(request: &RequestInfo) -> Option<String> {
    (request.is_about_secrets() && !request.name.is_empty())
        .then(|| shown(format!("{}/{}", request.namespace, request.name)))
}

/// Learns from an event without evaluating it.
pub(crate) fn learn(event: &mut Event<'_>, names: &NamePatterns, state: &mut ClusterState) {
    if OrderDependency::of(event).applies_to(event) {
        let request = RequestInfo::of(event);
        observe(event, &request, names, state);
        learn_after_evaluation(event, &request, state);
    }
}
