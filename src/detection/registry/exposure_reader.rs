//! What one event exposed of registry credentials.
//!
//! Takes an event and the cluster state, and returns the credentials that the response handed over ([`Exposure`]). If the response is
//! logged, it decides, regardless of verb and status: deletions, updates and requests that timed out can return secrets as well. If it is
//! not logged, its content is presumed: the named secret, or every known credential in the scope of the request. Types and contents that
//! the event shows are also recorded in the cluster state. The data of a secret must never enter the result, only hosts and user names.

use std::borrow::Cow;

use super::cluster_state::ClusterState;
use super::docker_config::SECRET_TYPES;
use super::evidence::Evidence;
use super::exposure::{Exposure, ReadScope};
use super::exposure_kind::ExposureKind;
use super::failed_patch::{Quoted, quoted};
use super::findings::{Finding, Findings, MAX_NAMED, Selection};
use super::request_info::{Deletion, has_finalizers};
use super::secret_view::{SecretView, for_each_secret, is_known_form, unquoted};
use super::watch_query::sends_initial_events;
use super::{RequestInfo, borrowed_text, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{JsonError, Raw, Type};
use crate::detection::audit::outcome::Outcome;
use crate::detection::audit::uri::query::Readings;
use crate::text::name_patterns::NamePatterns;

/// The default type of secrets, which may have any content.
const OPAQUE: &[u8] = b"Opaque";

/// What a request does to secrets, which decides what its response can expose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The response contains data that was stored before, or that the client need not know.
    Read,
    /// The stream contains later changes and, depending on the query, existing objects.
    Watch,
    /// The response contains what the client sent, and what admission and the server added.
    Write,
    /// The response contains a status, or the secret if it still exists (finalizers, foreground deletion, dry run).
    Delete,
}

impl Access {
    fn of(verb: &str) -> Option<Self> {
        match verb {
            // The response to a patch contains the whole secret, and the response to a deletecollection all deleted ones.
            "get" | "list" | "patch" | "deletecollection" => Some(Access::Read),
            "watch" => Some(Access::Watch),
            "create" | "update" => Some(Access::Write),
            "delete" => Some(Access::Delete),
            _ => None,
        }
    }
}

impl Exposure {
    /// Returns what an event is about and what it exposed. A watch counts once: when it starts or, if the policy omits the start, when it
    /// ends. Without cluster state only the event itself counts.
    pub(crate) fn of<'e>(
        event: &mut Event<'e>,
        request: &RequestInfo<'e>,
        names: &NamePatterns,
        mut state: Option<&mut ClusterState>,
    ) -> Self {
        if !request.is_about_secrets() {
            return Exposure::default();
        }
        let Some(access) = Access::of(&request.verb) else { return Exposure::default() };
        let stage = borrowed_text(event.get(Member::Stage)).unwrap_or_default();
        if !is_counted(event, request, &stage, access, state.as_deref_mut()) {
            return Exposure::default();
        }
        if let Some(state) = &mut state {
            state.count_request();
        }
        let target = Target::of(event, request);
        let scope = target.scope(access);
        let bodies = [Member::ResponseObject, Member::RequestObject].map(|member| event.get(member));
        let unquoted = bodies.map(unquoted);
        let object = |at: usize| {
            let quoted = unquoted[at].as_ref().and_then(|text| Raw::first(text).ok());
            quoted.or(bodies[at]).filter(|body| body.kind() == Type::Object)
        };
        let objects = Objects {
            response: object(0),
            sent: object(1),
            // A truncated line may end before the credentials.
            is_cut: event.finish() == Err(JsonError::Truncated),
        };
        let mut reader = ExposureReader { names, state, request, target, findings: Findings::default() };
        // The handler may have panicked after it had written a part of the response. After a timeout, nothing except the error is written.
        let may_have_answered = request.may_have_succeeded() && request.code != Some(504) || stage == "Panic";
        match quoted(event, request) {
            Some(quoted) => reader.read_quoted(&quoted),
            None => reader.read(&objects, access, may_have_answered),
        }
        reader.record_access(event);
        let kind = match reader.findings.kind() {
            ExposureKind::None if is_denied(request) => ExposureKind::Denied,
            kind => kind,
        };
        // The credentials at the start of a truncated list may be decoys for those in the missing part.
        let has_more = objects.is_cut && reader.target.is_collection && kind == ExposureKind::Payload;
        let state = reader.state.as_deref();
        let declared =
            |namespace: &str, name: &str| state.and_then(|state| state.declared_logins(namespace, name));
        let Selection { secrets, count, evidence, logins, is_truncated } = reader.findings.select(declared);
        let is_truncated = is_truncated || has_more;
        Exposure { kind, scope, secrets, count, evidence, logins, is_truncated }
    }
}

fn is_denied(request: &RequestInfo<'_>) -> bool {
    !request.may_have_succeeded() && matches!(request.code, Some(401 | 403))
}

/// The request and response objects of an event.
struct Objects<'e> {
    response: Option<Raw<'e>>,
    sent: Option<Raw<'e>>,
    is_cut: bool,
}

/// Returns whether this stage of a request is the one that is reported.
fn is_counted(
    event: &mut Event<'_>,
    request: &RequestInfo<'_>,
    stage: &str,
    access: Access,
    state: Option<&mut ClusterState>,
) -> bool {
    match (stage, access, state) {
        ("ResponseStarted" | "ResponseComplete" | "Panic", Access::Watch, Some(state)) => {
            state.is_first_of_request(event)
        }
        ("ResponseStarted", Access::Watch, None) => true,
        // A request that failed authentication has no other stage.
        ("ResponseStarted", ..) => request.code == Some(401),
        ("ResponseComplete" | "Panic", _, _) => access != Access::Watch,
        _ => false,
    }
}

/// The secrets that a request selects.
struct Target<'e> {
    /// Empty if the request selects many.
    name: Cow<'e, str>,
    /// Empty for the whole cluster.
    namespace: Cow<'e, str>,
    uri: Cow<'e, [u8]>,
    is_collection: bool,
}

impl<'e> Target<'e> {
    fn of(event: &mut Event<'e>, request: &RequestInfo<'e>) -> Self {
        let uri = event.text(Member::RequestUri).unwrap_or_default();
        let mut namespace = request.namespace.clone();
        if namespace.is_empty() {
            namespace = selected_namespace(&uri).unwrap_or_default().into();
        }
        Target { name: request.name.clone(), namespace, uri, is_collection: !request.has_name }
    }

    fn scope(&self, access: Access) -> ReadScope {
        if !self.is_collection || matches!(access, Access::Write | Access::Delete) {
            ReadScope::Secret
        } else if self.namespace.is_empty() {
            ReadScope::Cluster
        } else {
            ReadScope::Namespace
        }
    }
}

/// Returns the namespace to which a field selector restricts a cluster-wide request, in every reading of the query.
fn selected_namespace(uri: &[u8]) -> Option<String> {
    let readings = Readings::of(uri);
    let selector = readings.current().field_selector().ok()?;
    let namespace = selector.required("metadata.namespace").next()?;
    let is_sure = readings.all(|query| {
        query
            .field_selector()
            .is_ok_and(|selector| selector.required("metadata.namespace").any(|value| value == namespace))
    });
    is_sure.then(|| String::from_utf8_lossy(namespace).into_owned())
}

/// Reads one event.
struct ExposureReader<'n, 's, 'r, 'e> {
    names: &'n NamePatterns,
    state: Option<&'s mut ClusterState>,
    request: &'r RequestInfo<'e>,
    target: Target<'e>,
    findings: Findings<'e>,
}

impl<'e> ExposureReader<'_, '_, '_, 'e> {
    fn evidence(&mut self, namespace: &str, name: &str) -> Option<Evidence> {
        match &mut self.state {
            Some(state) => state.evidence(namespace, name, self.names),
            None => self.names.matches(name).then_some(Evidence::Name),
        }
    }

    fn read(&mut self, objects: &Objects<'e>, access: Access, may_have_answered: bool) {
        let sent = objects.sent.filter(|_| access == Access::Write).map(SecretView::of);
        if let Some(response) = objects.response {
            for_each_secret(response, |secret| self.read_secret(secret, sent.as_ref()));
        }
        if !may_have_answered {
            if let Some(sent) = sent.filter(|_| self.request.may_have_persisted()) {
                self.read_sent(&sent);
            }
            self.add_target(ExposureKind::None);
            return;
        }
        let is_table = objects.response.is_some_and(|response| super::is(response.get("kind"), "Table"));
        let may_continue = match self.findings.kind() {
            ExposureKind::Payload => false,
            ExposureKind::Metadata => !is_table,
            _ => true,
        };
        // The missing part of a truncated line may contain the type of the object.
        let is_readable = |response| objects.is_cut || is_known_form(response);
        let is_shown = objects.response.is_some_and(is_readable) && !(objects.is_cut && may_continue);
        if !is_shown {
            // A partial response that showed a secret without its data does not replace the presumption.
            self.findings = Findings::default();
        }
        // A truncated list shows some credentials; others in its scope may be in the missing part.
        if objects.is_cut && access == Access::Read && self.target.name.is_empty() && is_shown {
            self.presume(true);
        }
        match access {
            Access::Watch => self.presume(sends_initial_events(&self.target.uri)),
            Access::Read | Access::Delete if !is_shown => self.presume(true),
            // A client need not make a dry run to see what it sends itself.
            Access::Write if !is_shown && sent.is_none() && self.request.dry_run() == "true" => {
                self.presume(true);
            }
            Access::Write => {
                if let Some(sent) = &sent {
                    self.read_sent(sent);
                }
                self.add_target(ExposureKind::None);
            }
            Access::Read | Access::Delete => self.add_target(ExposureKind::None),
        }
    }

    /// Reads what the error of a patch quotes. The name and the type in it are what the client wanted them to be.
    fn read_quoted(&mut self, quoted: &Quoted) {
        self.add_target(ExposureKind::Presumed);
        if let Quoted::Object(text) = quoted
            && let Ok(object) = Raw::first(text)
            && self.findings.is_empty()
        {
            let secret = SecretView::of(object);
            if let Some(evidence) = secret.evidence() {
                let Target { name, namespace, .. } = &self.target;
                self.findings.add(Finding::known(
                    ExposureKind::Payload,
                    namespace.clone(),
                    name.clone(),
                    evidence,
                ));
            }
        }
    }

    /// Adds the secret that a request named, unless it is there already.
    fn add_target(&mut self, kind: ExposureKind) {
        let Target { name, namespace, .. } = &self.target;
        let (name, namespace) = (name.clone(), namespace.clone());
        if !name.is_empty()
            && self.findings.is_empty()
            && let Some(evidence) = self.evidence(&namespace, &name)
        {
            self.findings.add(Finding::known(kind, namespace, name, evidence));
        }
    }

    /// Derives the exposure from the request, if the response is not in the log. Without `includes_existing`, only later changes were sent.
    fn presume(&mut self, includes_existing: bool) {
        if !self.target.name.is_empty() {
            if self.target.namespace.is_empty() {
                self.presume_name_in_all_namespaces();
            } else {
                self.add_target(ExposureKind::Presumed);
            }
            return;
        }
        let scope = (!self.target.namespace.is_empty()).then_some(&*self.target.namespace);
        let readings = Readings::of(&self.target.uri);
        // A selector that excludes the types of registry credentials still selects those of other types, unless it excludes them too.
        let excludes_types = readings.excludes_field("type", &SECRET_TYPES);
        let excludes_others = excludes_types && readings.excludes_field("type", &[OPAQUE]);
        let Some(state) = self.state.as_deref() else {
            if !excludes_types {
                self.findings.presume();
            }
            return;
        };
        let (known, count) = state.select_credentials(scope, MAX_NAMED, |known| {
            !excludes_types || known.evidence == Evidence::Content && !excludes_others
        });
        if excludes_types && count == 0 {
            return;
        }
        self.findings.presume();
        // The labels of credentials are unknown, so the request is reported without names.
        if includes_existing && !readings.requires_label() {
            self.findings.add_presumed(&known, count);
        }
    }

    /// A field selector can select one name in all namespaces.
    fn presume_name_in_all_namespaces(&mut self) {
        let name = &self.target.name;
        if let Some(state) = self.state.as_deref() {
            let (known, count) = state.select_credentials(None, MAX_NAMED, |known| known.name == name);
            self.findings.add_presumed(&known, count);
        }
        if self.findings.is_empty() && self.names.matches(name) {
            self.findings.add(Finding::known(
                ExposureKind::Presumed,
                "*".into(),
                name.clone(),
                Evidence::Name,
            ));
        }
    }

    /// Adds a secret of the response if it is a credential. `sent` is the request of a write; its own data in the response does not count as an exposure.
    fn read_secret(&mut self, secret: &SecretView<'e>, sent: Option<&SecretView<'e>>) {
        let mut name = secret.name.clone().unwrap_or_else(|| self.target.name.clone());
        if name.is_empty() {
            // The server names every secret; a log does not always.
            if !secret.has_data() {
                return;
            }
            name = "*".into();
        }
        let namespace = secret.namespace.clone().unwrap_or_else(|| self.target.namespace.clone());
        let kind = match (secret.has_data(), self.is_write()) {
            (true, true) if self.is_known_to_client(secret, sent) => ExposureKind::None,
            (true, _) => ExposureKind::Payload,
            (false, true) => ExposureKind::None,
            (false, false) => ExposureKind::Metadata,
        };
        let before = self.evidence(&namespace, &name);
        self.record_type(&namespace, &name, secret);
        let evidence = secret.evidence().or(match before {
            // Its type is a different one, so references and its name prove nothing.
            Some(before) if secret.shows_type() => {
                let shows_data = secret.shows_data();
                let holds = match before {
                    Evidence::Content => !shows_data,
                    Evidence::Inventory => self
                        .state
                        .as_deref()
                        .is_some_and(|state| state.is_declared_of_any_type(&namespace, &name, shows_data)),
                    _ => false,
                };
                holds.then_some(before)
            }
            before => before,
        });
        if let Some(evidence) = evidence {
            let is_known = before.is_some_and(|before| before > Evidence::Name);
            self.findings.add(Finding::shown(kind, namespace, name, evidence, is_known, secret.raw()));
        }
    }

    /// Returns whether the data in the response to a write came from the client.
    fn is_known_to_client(&self, secret: &SecretView<'e>, sent: Option<&SecretView<'e>>) -> bool {
        match sent {
            Some(sent) => sent.includes_data_of(secret),
            None => self.request.verb == "create" && self.request.dry_run() == "false",
        }
    }

    fn is_write(&self) -> bool {
        matches!(&*self.request.verb, "create" | "update")
    }

    /// Reads a secret that is created or updated from the request: the response may omit its type and data.
    fn read_sent(&mut self, secret: &SecretView<'e>) {
        let name = secret.name.clone().unwrap_or_else(|| self.target.name.clone());
        if name.is_empty() {
            return;
        }
        if !self.findings.is_empty() {
            return;
        }
        let namespace = self.target.namespace.clone();
        self.record_type(&namespace, &name, secret);
        if let Some(evidence) = secret.evidence() {
            let kind = ExposureKind::None;
            self.findings.add(Finding::shown(kind, namespace, name, evidence, false, secret.raw()));
        }
    }

    /// Records what the event shows of a secret, unless the request failed or was a dry run.
    fn record_type(&mut self, namespace: &str, name: &str, secret: &SecretView<'_>) {
        if !self.request.may_have_persisted() {
            return;
        }
        if let Some(state) = &mut self.state
            && let Some(is_credential) = secret.is_of_credential_type()
        {
            // The type is the stronger evidence; the content is only searched without it.
            let has_content = (!is_credential && secret.shows_data()).then(|| secret.has_content());
            state.record_type(namespace, name, is_credential, has_content, self.names);
        }
    }

    /// Records when a credential was created or changed, and that it exists.
    fn record_access(&mut self, event: &mut Event<'_>) {
        if !self.request.may_have_persisted() || self.target.name.is_empty() {
            return;
        }
        let Some(state) = &mut self.state else { return };
        let Target { name, namespace, .. } = &self.target;
        match &*self.request.verb {
            "create" | "update" | "patch" => {
                if let Some(time) = event.time() {
                    if self.request.verb == "create" {
                        state.record_creation(namespace, name, time);
                    }
                    state.record_write(namespace, name, time, self.names);
                }
            }
            "get" if self.request.outcome == Outcome::Success => state.record_existence(namespace, name),
            _ => {}
        }
    }
}

/// Removes deleted secrets from the cluster state, since later secrets of the same name may be something else. If the deletion of a secret
/// is not proven, it is kept.
pub(super) fn remove_deleted(event: &mut Event<'_>, request: &RequestInfo<'_>, state: &mut ClusterState) {
    if !request.is_about_secrets() {
        return;
    }
    let time = event.time();
    if request.verb == "delete" && request.has_name && request.deletion(event) != Deletion::None {
        state.record_deletion_by(event, &request.namespace, &request.name);
    }
    if request.proves_absence(event) {
        state.remove_absent_secret(&request.namespace, &request.name, time);
    }
    match (request.deletion(event), &*request.verb) {
        (Deletion::None, _) => {}
        (Deletion::Proven, "delete") => state.remove_secret(&request.namespace, &request.name, time),
        (Deletion::Unproven, "delete") => state.record_unproven_deletion(&request.namespace, &request.name),
        // The response is the list of deleted secrets. Those with finalizers may still exist.
        (Deletion::Proven, _) => {
            let items = event.get(Member::ResponseObject).into_iter().flat_map(|list| list.items_of("items"));
            for metadata in items.filter_map(|item| item.get("metadata")) {
                let part = |key: &str| text(metadata.get(key));
                let namespace = part("namespace").unwrap_or_else(|| request.namespace.clone().into_owned());
                if let Some(name) = part("name").filter(|_| !has_finalizers(metadata)) {
                    state.remove_secret(&namespace, &name, time);
                }
            }
        }
        (Deletion::Unproven, _) => {
            if !request.namespace.is_empty() {
                state.record_unproven_deletions(&request.namespace);
            }
        }
    }
}

/// Returns whether a field selector may restrict a request to the types of registry credentials.
///
/// The URI decides, since a request that failed early has no `objectRef`.
pub(crate) fn selects_credential_types(event: &mut Event<'_>) -> bool {
    let uri = event.text(Member::RequestUri).unwrap_or_default();
    Readings::of(&uri).may_require_field("type", &SECRET_TYPES)
}

#[cfg(test)]
mod tests;
