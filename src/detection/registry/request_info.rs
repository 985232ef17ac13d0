//! The request of an audit event: its target, whether it succeeded, and whether its effect was persisted.
//!
//! Takes an event and returns the properties of its head that exposure, references, grants and Pod Security all need, read once per event.
//! Of the objects, only the name that the server generated is kept.
//!
//! Cluster state changes only by what was persisted: not by dry runs, not by failed requests, not by deletions that may not have ended.
//! Facts that raise suspicion are learned from requests that [may have been persisted](RequestInfo::may_have_persisted); facts are
//! forgotten only if the event [proves](RequestInfo::deletion) it.

use std::borrow::Cow;

use super::{borrowed_text, is};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::outcome::Outcome;
use crate::detection::audit::uri::query::{Query, Readings};

/// Whether a request asked for a dry run, which persists nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DryRun {
    #[default]
    No,
    Yes,
    /// The options are not logged: a deletion has them in its body, or in its query only if it has no body.
    Unknown,
}

/// What an event shows about the outcome of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Nothing was deleted.
    None,
    /// The objects may be gone, or may still exist: the response is not logged, or shows an object that waits for finalizers or for the end
    /// of its grace period.
    Unproven,
    Proven,
}

/// The target of a request. Strings are empty if the event does not contain them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo<'e> {
    /// Empty for the core group, and if it is not logged.
    api_group: Cow<'e, str>,
    pub(super) resource: Cow<'e, str>,
    pub(super) subresource: Cow<'e, str>,
    /// Empty for cluster-scoped objects and for requests across all namespaces.
    pub(super) namespace: Cow<'e, str>,
    /// The name of the object; if the request has none, the generated name from the response.
    pub(super) name: Cow<'e, str>,
    /// Whether the request named a single object, in its path or by a selector.
    pub(super) has_name: bool,
    pub(super) verb: Cow<'e, str>,
    pub(super) outcome: Outcome,
    /// The HTTP status.
    pub(super) code: Option<u16>,
    dry_run: DryRun,
}

impl<'e> RequestInfo<'e> {
    /// Reads the request of an event.
    pub fn of(event: &mut Event<'e>) -> Self {
        let object = event.object();
        let text = |raw| borrowed_text(raw).unwrap_or_default();
        let verb = text(event.get(Member::Verb));
        let (outcome, code) = Outcome::with_code(event);
        let mut request = RequestInfo {
            api_group: text(object.api_group),
            resource: text(object.resource),
            subresource: text(object.subresource),
            namespace: text(object.namespace),
            name: text(object.name),
            outcome,
            code,
            verb,
            ..RequestInfo::default()
        };
        request.has_name = !request.name.is_empty();
        if !request.has_name && request.verb == "create" {
            request.name = text(event.path(&["responseObject", "metadata", "name"]));
        }
        request.read_dry_run(event);
        request
    }

    fn read_dry_run(&mut self, event: &mut Event<'_>) {
        let is_deletion = match &*self.verb {
            "create" | "update" | "patch" => false,
            "delete" | "deletecollection" => true,
            _ => return,
        };
        let by_query = match event.text(Member::RequestUri) {
            Some(uri) => {
                let readings = Readings::of(&uri);
                match (readings.all(Query::is_dry_run), readings.any(Query::is_dry_run)) {
                    (true, _) => DryRun::Yes,
                    (false, true) => DryRun::Unknown,
                    (false, false) => DryRun::No,
                }
            }
            None => DryRun::Unknown,
        };
        self.dry_run = if is_deletion { dry_run_of_options(event).unwrap_or(by_query) } else { by_query };
    }

    /// The API group of the resource; empty for the core group.
    pub(super) fn api_group(&self) -> &str {
        &self.api_group
    }

    /// Returns whether the object belongs to the API group in which the resource is built in. A custom resource can have any name, so
    /// sharing the name proves nothing.
    pub(super) fn is_built_in(&self) -> bool {
        let group = match &*self.resource {
            "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings" => "rbac.authorization.k8s.io",
            "deployments" | "replicasets" | "statefulsets" | "daemonsets" => {
                return matches!(&*self.api_group, "" | "apps" | "extensions");
            }
            "jobs" | "cronjobs" => "batch",
            "volumeattachments" => "storage.k8s.io",
            _ => "",
        };
        self.api_group.is_empty() || self.api_group == group
    }

    /// Returns whether the request is for secrets, and not for a subresource of one.
    pub(super) fn is_about_secrets(&self) -> bool {
        self.resource == "secrets" && self.subresource.is_empty() && self.is_built_in()
    }

    /// Returns whether the request succeeded, as far as the event says.
    pub(super) fn may_have_succeeded(&self) -> bool {
        self.outcome != Outcome::Failure
    }

    /// Returns whether the cluster may now be in the requested state: the request may have succeeded and was not a dry run. True for reads
    /// too.
    pub(super) fn may_have_persisted(&self) -> bool {
        self.may_have_succeeded() && self.dry_run != DryRun::Yes
    }

    /// Returns whether the request was a dry run: `true`, `false` or `unknown`.
    pub(crate) fn dry_run(&self) -> &'static str {
        match self.dry_run {
            DryRun::Yes => "true",
            DryRun::Unknown => "unknown",
            DryRun::No => "false",
        }
    }

    /// Returns what a delete or deletecollection request has deleted for good.
    pub(super) fn deletion(&self, event: &mut Event<'_>) -> Deletion {
        if !matches!(&*self.verb, "delete" | "deletecollection") || !self.may_have_persisted() {
            return Deletion::None;
        }
        let is_proven = self.outcome == Outcome::Success
            && self.dry_run == DryRun::No
            && !keeps_finalizers(event)
            && event.finish().is_ok()
            && event.get(Member::ResponseObject).is_some_and(|response| {
                if self.verb == "deletecollection" {
                    response.get("items").is_some_and(|items| items.kind() == Type::Array)
                } else {
                    is_gone(response)
                }
            });
        if is_proven { Deletion::Proven } else { Deletion::Unproven }
    }

    /// Returns whether the event proves that the requested node was deleted.
    pub(super) fn has_deleted_node(&self, event: &mut Event<'_>) -> bool {
        self.resource == "nodes"
            && self.subresource.is_empty()
            && self.is_built_in()
            && self.verb == "delete"
            && self.deletion(event) == Deletion::Proven
    }

    /// Returns whether the response proves that a secret of this name does not exist. A path with another version of the API, or with an
    /// empty part, leads to the same reference to an object and to the same code, whether or not there is one.
    pub(super) fn proves_absence(&self, event: &mut Event<'_>) -> bool {
        self.verb == "get"
            && self.has_name
            && self.code == Some(404)
            && event.text(Member::RequestUri).is_some_and(|uri| {
                let path = uri.split(|byte| *byte == b'?').next().unwrap_or_default();
                let expected = format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name);
                !self.namespace.is_empty() && path == expected.as_bytes()
            })
    }
}

/// Returns the dry-run option of a deletion from its body; none if only the query decides. The apiserver ignores the query if the request
/// has a body, and logs the body from level Request on.
fn dry_run_of_options(event: &mut Event<'_>) -> Option<DryRun> {
    if let Some(options) = event.get(Member::RequestObject) {
        let is_dry_run = options.get("dryRun").is_some_and(|values| values.items().next().is_some());
        return Some(if is_dry_run { DryRun::Yes } else { DryRun::No });
    }
    let is_logged = matches!(event.text(Member::Level).as_deref(), Some(b"Request" | b"RequestResponse"));
    if is_logged && !event.is_truncated() { None } else { Some(DryRun::Unknown) }
}

/// Returns whether the options of a deletion make the objects wait for the garbage collector.
fn keeps_finalizers(event: &mut Event<'_>) -> bool {
    let waits = |policy: &[u8]| policy != b"Background";
    let by_options = event.get(Member::RequestObject).is_some_and(|options| {
        options.get("propagationPolicy").and_then(Raw::string).is_some_and(|policy| waits(&policy))
            || options.get("orphanDependents").is_some_and(|value| value.bytes() != b"false")
    });
    by_options
        || event.text(Member::RequestUri).is_some_and(|uri| {
            Readings::of(&uri).any(|query| {
                query.first("propagationPolicy").is_some_and(waits)
                    || query.flag("orphanDependents").is_some_and(|value| value)
            })
        })
}

/// Returns whether the response to a deletion says that the object is gone: a status, or the object at the end of its grace
/// period without finalizers.
fn is_gone(response: Raw<'_>) -> bool {
    if is(response.get("kind"), "Status") {
        return is(response.get("status"), "Success");
    }
    let Some(metadata) = response.get("metadata") else { return false };
    !has_finalizers(metadata)
        && metadata.get("deletionTimestamp").is_some()
        && metadata.get("deletionGracePeriodSeconds").is_some_and(|seconds| seconds.bytes() == b"0")
}

/// Returns whether an object waits for finalizers when it is deleted.
pub(super) fn has_finalizers(metadata: Raw<'_>) -> bool {
    metadata.get("finalizers").is_some_and(|finalizers| finalizers.items().next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(level: &str, verb: &str, query: &str, code: u16, rest: &str) -> String {
        format!(
            r#"{{"kind":"Event","level":"{level}","requestURI":"/api/v1/namespaces/p/pods/x{query}","verb":"{verb}","objectRef":{{"resource":"pods","namespace":"p","name":"x"}},"responseStatus":{{"code":{code}}}{rest}}}"#
        )
    }

    fn read(event: &str) -> (RequestInfo<'_>, Deletion) {
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        let deletion = request.deletion(&mut event);
        (request, deletion)
    }

    #[test]
    fn a_deletion_is_proven_by_a_logged_response_without_dry_run_finalizers_and_grace_period() {
        const STATUS: &str = r#","responseObject":{"kind":"Status","status":"Success"}"#;
        let object = |metadata: &str| format!(r#","responseObject":{{"kind":"Pod","metadata":{metadata}}}"#);
        let over = r#"{"deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0}"#;
        for (level, query, code, rest, expected) in [
            ("RequestResponse", "", 200, STATUS.to_owned(), Deletion::Proven),
            ("RequestResponse", "", 200, object(over), Deletion::Proven),
            ("Metadata", "", 200, String::new(), Deletion::Unproven),
            ("Request", "", 200, String::new(), Deletion::Unproven),
            ("RequestResponse", "?dryRun=All", 200, STATUS.to_owned(), Deletion::None),
            ("RequestResponse", "?dryRun=", 200, STATUS.to_owned(), Deletion::None),
            ("RequestResponse", "?x;dryRun=All", 200, STATUS.to_owned(), Deletion::Unproven),
            ("RequestResponse", "?propagationPolicy=Foreground", 200, STATUS.to_owned(), Deletion::Unproven),
            ("RequestResponse", "", 404, STATUS.to_owned(), Deletion::None),
            ("RequestResponse", "", 200, object("{}"), Deletion::Unproven),
            ("RequestResponse", "", 200, object(&over.replace(":0}", ":30}")), Deletion::Unproven),
            (
                "RequestResponse",
                "",
                200,
                object(&over.replace('{', r#"{"finalizers":["a/b"],"#)),
                Deletion::Unproven,
            ),
            (
                "RequestResponse",
                "",
                200,
                format!(r#","requestObject":{{"kind":"DeleteOptions","dryRun":["All"]}}{STATUS}"#),
                Deletion::None,
            ),
            (
                "RequestResponse",
                "?dryRun=All",
                200,
                format!(r#","requestObject":{{"kind":"DeleteOptions"}}{STATUS}"#),
                Deletion::Proven,
            ),
            (
                "RequestResponse",
                "",
                200,
                format!(r#"{STATUS},"annotations":{{"audit.k8s.io/truncated":"true"}}"#),
                Deletion::Unproven,
            ),
        ] {
            let text = event(level, "delete", query, code, &rest);
            assert_eq!(read(&text).1, expected, "{text}");
        }
        let text = event("RequestResponse", "delete", "", 200, STATUS);
        assert_eq!(read(&text[..text.len() - 1]).1, Deletion::Unproven);
    }

    #[test]
    fn a_dry_run_is_what_the_server_took_for_one() {
        for (verb, query, expected, persisted) in [
            ("create", "?dryRun=All", "true", false),
            ("create", "?%64ryRun=All", "true", false),
            ("create", "", "false", true),
            // Go drops the pair, or reads it, depending on its version.
            ("create", "?x;dryRun=All", "unknown", true),
            ("create", "?dryRun=%zz", "false", true),
            ("patch", "?dryrun=All", "false", true),
            ("delete", "", "unknown", true),
            ("delete", "?dryRun=All", "unknown", true),
            ("get", "?dryRun=All", "false", true),
        ] {
            let text = event("Metadata", verb, query, 200, "");
            let (request, _) = read(&text);
            assert_eq!(
                (request.dry_run(), request.may_have_persisted()),
                (expected, persisted),
                "{verb} {query}"
            );
        }
    }

    #[test]
    fn custom_resources_of_the_same_name_are_not_built_in() {
        for (reference, expected) in [
            (r#"{"resource":"secrets"}"#, true),
            (r#"{"resource":"secrets","apiGroup":"evil.io"}"#, false),
            (r#"{"resource":"clusterroles","apiGroup":"rbac.authorization.k8s.io"}"#, true),
            (r#"{"resource":"clusterroles","apiGroup":"evil.io"}"#, false),
            (r#"{"resource":"deployments","apiGroup":"extensions"}"#, true),
        ] {
            let text = format!(r#"{{"objectRef":{reference}}}"#);
            assert_eq!(
                RequestInfo::of(&mut Event::new(text.as_bytes())).is_built_in(),
                expected,
                "{reference}"
            );
        }
    }
}
