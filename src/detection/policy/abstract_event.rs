//! Hypothetical events: what the event of a kind of request can contain at a given stage and level. The abstract counterpart of
//! [`engine::extract`](crate::detection::engine::extract).
//!
//! **A new kind of [`Source`] has to be added here and nowhere else in this folder**: which part of the event it reads ([`reads`]), and
//! what is known about its value before the event exists ([`abstract_value`]).

use super::abstract_value::AbstractValue;
use super::model::{Level, Stage};
use super::requests::{OTHER, Request, UNKNOWN_GROUP};
use super::scenarios::{Name, NamespaceKind, Scenario, UserName};
use crate::detection::engine::extract::{FieldReader, user_kind};
use crate::detection::registry::is_custom_group;
use crate::detection::rules::ast::FieldRef;
use crate::detection::rules::fields::{ExposureField, ReaderField, Registry, Source};

/// The part of an event that a field reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The part that every event has.
    Head,
    /// The client's object, from level Request on.
    RequestObject,
    /// The apiserver's response, at level RequestResponse.
    ResponseObject,
}

impl Part {
    /// The member of the event.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Head => "head",
            Part::RequestObject => "requestObject",
            Part::ResponseObject => "responseObject",
        }
    }

    /// The lowest level that logs it.
    pub const fn level(self) -> Level {
        match self {
            Part::Head => Level::Metadata,
            Part::RequestObject => Level::Request,
            Part::ResponseObject => Level::RequestResponse,
        }
    }
}

/// An event that a request would cause at a stage, logged at a level.
#[derive(Clone, Copy, Debug)]
pub struct HypotheticalEvent<'a> {
    pub request: &'a Request,
    pub scenario: &'a Scenario,
    pub stage: Stage,
    pub level: Level,
}

impl HypotheticalEvent<'_> {
    /// Whether the event contains a part.
    pub fn has(&self, part: Part) -> bool {
        let exists = match part {
            Part::Head => true,
            Part::RequestObject => self.request.sends_object(),
            Part::ResponseObject => self.request.answers_object(),
        };
        // The client's object is decoded after RequestReceived is logged.
        exists && self.level >= part.level() && (part == Part::Head || self.stage != Stage::RequestReceived)
    }

    /// Whether it is examined for registry credentials among secrets.
    fn is_about_secrets(&self) -> bool {
        let request = self.request;
        (&*request.group, &*request.resource, &*request.subresource) == ("", "secrets", "")
            && match self.stage {
                Stage::ResponseComplete => true,
                Stage::ResponseStarted => request.verb == "watch",
                _ => false,
            }
    }

    /// Whether it is a read of secrets that is examined for exposed credentials.
    fn is_exposure(&self) -> bool {
        self.is_about_secrets()
            && matches!(&*self.request.verb, "get" | "list" | "watch" | "patch" | "deletecollection")
    }
}

/// The path of JSON keys that a field reads, if it reads a path.
pub fn path(field: &FieldRef) -> Option<Vec<String>> {
    if let Source::Elements(keys) = field.field.source {
        return Some(keys.iter().map(|key| (*key).to_owned()).collect());
    }
    let access = FieldReader::new(field);
    let path = access.static_path()?;
    Some(path.into_iter().map(str::to_owned).collect())
}

/// The part of an event that a field needs.
pub fn reads(field: &FieldRef) -> Part {
    match field.field.source {
        Source::Path(_) | Source::Elements(_) | Source::Pointer => match path(field) {
            Some(path) => match path.first().map(String::as_str) {
                Some("requestObject") => Part::RequestObject,
                Some("responseObject") => Part::ResponseObject,
                _ => Part::Head,
            },
            None => Part::Head,
        },
        Source::PodName => Part::ResponseObject,
        Source::Container(..)
        | Source::FirstContainer(_)
        | Source::AnyPrivileged
        | Source::Subjects(_)
        | Source::RoleRules(_)
        | Source::Volume(_)
        | Source::VolumeTypes
        | Source::HasHostPath => Part::RequestObject,
        Source::Exposure(ExposureField::Scope | ExposureField::Truncated) => Part::Head,
        // Exact with the response, presumed without it.
        Source::Exposure(_) | Source::Registry(Registry::Copies) => Part::ResponseObject,
        Source::Registry(part) if part.reads_objects() => Part::RequestObject,
        Source::Registry(_) => Part::Head,
        Source::Reader(_) => Part::Head,
        // Only in outputs of correlations.
        Source::Correlation(_) => Part::Head,
        Source::ClientAddress
        | Source::ClientNetwork
        | Source::ClientNode(_)
        | Source::Extra
        | Source::UserExtra(_)
        | Source::UserKind
        | Source::Actor
        | Source::UserProgram
        | Source::Interactive
        | Source::Truncated
        | Source::TargetMissing
        | Source::Oversized
        | Source::Outcome => Part::Head,
        Source::Whole
        | Source::WholeIndented
        | Source::UriParameter
        | Source::AlwaysTrue
        | Source::Nanoseconds
        | Source::Seconds
        | Source::SubsecondNanoseconds
        | Source::Clock(_)
        | Source::Position
        | Source::Constant(_)
        | Source::Hostname
        | Source::Cluster => Part::Head,
    }
}

/// The part that a field lacks in an event because of its level.
pub fn lacks(field: &FieldRef, event: &HypotheticalEvent<'_>) -> Option<Part> {
    let part = reads(field);
    let whole = HypotheticalEvent { level: Level::RequestResponse, ..*event };
    let is_about = match field.field.source {
        Source::Exposure(_) | Source::Registry(_) if part == Part::ResponseObject => whole.is_exposure(),
        _ => abstract_value(field, &whole) != AbstractValue::Missing,
    };
    (is_about && whole.has(part) && !event.has(part)).then_some(part)
}

/// What is known about a field's value in an event.
pub fn abstract_value(field: &FieldRef, event: &HypotheticalEvent<'_>) -> AbstractValue {
    if let Source::Exposure(part) = field.field.source {
        return exposure(part, event);
    }
    if let Source::Registry(part) = field.field.source {
        return registry(part, event);
    }
    if let Source::Reader(part) = field.field.source {
        return reader(part, event);
    }
    if !event.has(reads(field)) {
        return AbstractValue::Missing;
    }
    match field.field.source {
        Source::Path(_) | Source::Elements(_) | Source::Pointer => {
            match path(field).map(|path| abstract_value_at(&path, event)) {
                // An array shown as one string.
                Some(AbstractValue::Has(_)) if !matches!(field.field.source, Source::Elements(_)) => {
                    AbstractValue::There
                }
                Some(guess) => guess,
                None => AbstractValue::Unknown,
            }
        }
        Source::PodName if event.request.resource != "pods" || !event.request.subresource.is_empty() => {
            AbstractValue::Missing
        }
        Source::ClientAddress => AbstractValue::There,
        Source::ClientNetwork => AbstractValue::one_of(&["pods", "nodes", "outside"]),
        Source::Truncated | Source::TargetMissing | Source::Interactive => {
            AbstractValue::one_of(&["true", "false"])
        }
        Source::Oversized => AbstractValue::Unknown,
        Source::Outcome if event.stage == Stage::RequestReceived => AbstractValue::text("unknown"),
        Source::Outcome => AbstractValue::one_of(&["success", "failure"]),
        Source::UserKind => match &event.scenario.actor.name {
            UserName::Known(name) | UserName::StartsWith(name) => {
                // A kubelet is only recognized as one in its group, which is not modeled.
                AbstractValue::one_of(&[user_kind(name.as_bytes(), true), user_kind(name.as_bytes(), false)])
            }
            UserName::Any | UserName::Other => {
                AbstractValue::one_of(&["human", "serviceaccount", "node", "system", "anonymous"])
            }
        },
        Source::Actor => match &event.scenario.actor.name {
            UserName::Any => AbstractValue::Unknown,
            UserName::Other => AbstractValue::Other,
            // The user may impersonate another one.
            UserName::StartsWith(name) | UserName::Known(name) => AbstractValue::StartsWith(name.clone()),
        },
        Source::AlwaysTrue => AbstractValue::text("true"),
        Source::Constant(text) => AbstractValue::text(text),
        Source::Whole | Source::WholeIndented | Source::Hostname | Source::Position => AbstractValue::There,
        // A rule that names an instant in the future is intended never to fire.
        Source::Nanoseconds | Source::Seconds | Source::SubsecondNanoseconds | Source::Clock(_) => {
            AbstractValue::Other
        }
        _ => AbstractValue::Unknown,
    }
}

/// Returns the possible values of a `reader.*` field. Coverage is about attacks, so no reader is considered trusted.
fn reader(part: ReaderField, event: &HypotheticalEvent<'_>) -> AbstractValue {
    if !event.is_about_secrets() {
        return AbstractValue::Missing;
    }
    match part {
        // Writes are compared for service accounts alone.
        _ if matches!(&*event.request.verb, "create" | "update") => AbstractValue::Unknown,
        ReaderField::Status => {
            AbstractValue::one_of(&["unprofiled", "new", "deviating", "mismatch", "routine"])
        }
        ReaderField::IsNew | ReaderField::UsedOnNode => AbstractValue::one_of(&["true", "false"]),
        ReaderField::Trusted => AbstractValue::text("false"),
        ReaderField::DaysSeen | ReaderField::Repeats => AbstractValue::There,
        _ => AbstractValue::Unknown,
    }
}

fn exposure(part: ExposureField, event: &HypotheticalEvent<'_>) -> AbstractValue {
    if part == ExposureField::Truncated {
        return AbstractValue::one_of(&["true", "false"]);
    }
    let has_answer = event.has(Part::ResponseObject);
    if !event.is_exposure() {
        return match part {
            // The response to a write or a deletion can contain data that the client did not send.
            ExposureField::Kind if event.is_about_secrets() => AbstractValue::Unknown,
            ExposureField::Kind => AbstractValue::text("none"),
            ExposureField::Count => AbstractValue::There,
            ExposureField::Secrets | ExposureField::Evidence | ExposureField::Scope
                if event.is_about_secrets() =>
            {
                AbstractValue::Unknown
            }
            _ => AbstractValue::Missing,
        };
    }
    match part {
        ExposureField::Kind if has_answer => {
            AbstractValue::one_of(&["payload", "metadata", "denied", "none"])
        }
        ExposureField::Kind => AbstractValue::one_of(&["presumed", "denied", "none"]),
        ExposureField::Scope => AbstractValue::Unknown,
        ExposureField::Count => AbstractValue::There,
        ExposureField::Hosts | ExposureField::Usernames if !has_answer => AbstractValue::Missing,
        _ => AbstractValue::Unknown,
    }
}

fn registry(part: Registry, event: &HypotheticalEvent<'_>) -> AbstractValue {
    let request = event.request;
    let if_sent =
        || if event.has(Part::RequestObject) { AbstractValue::Unknown } else { AbstractValue::Missing };
    match part {
        Registry::ByType | Registry::OwnDeletion => AbstractValue::one_of(&["true", "false"]),
        Registry::DryRun => AbstractValue::one_of(&["true", "false", "unknown"]),
        Registry::Evicted | Registry::Target => AbstractValue::Unknown,
        // The secrets of a pod and its rights over its node were learned when it was created.
        Registry::Referenced | Registry::HostPrivileges
            if request.resource == "pods" && !request.subresource.is_empty() =>
        {
            AbstractValue::Unknown
        }
        Registry::Referenced | Registry::ImageHosts | Registry::Copied => if_sent(),
        Registry::Named if request.group == UNKNOWN_GROUP || is_custom_group(&request.group) => if_sent(),
        Registry::Named => AbstractValue::Missing,
        // The config maps that hold a credential were learned when they were written.
        Registry::Copies if request.resource != "secrets" => AbstractValue::Unknown,
        Registry::Granted
        | Registry::Privileges
        | Registry::Role
        | Registry::RoleKnown
        | Registry::Subjects
        | Registry::AggregatedInto
            if request.group == "rbac.authorization.k8s.io" =>
        {
            if_sent()
        }
        Registry::KubeletPath if (&*request.resource, &*request.subresource) == ("nodes", "proxy") => {
            AbstractValue::Unknown
        }
        Registry::CertificateUser if request.resource == "certificatesigningrequests" => if_sent(),
        Registry::PullSecrets | Registry::HostPaths | Registry::HostPrivileges => if_sent(),
        Registry::Replicated => if_sent(),
        Registry::Emptied if event.has(Part::RequestObject) => AbstractValue::one_of(&["true", "false"]),
        Registry::Emptied => AbstractValue::text("false"),
        Registry::CloudIdentities if request.resource == "serviceaccounts" => if_sent(),
        Registry::PodSecurity if request.resource == "namespaces" => if_sent(),
        Registry::Copies
        | Registry::CertificateUser
        | Registry::Granted
        | Registry::Privileges
        | Registry::Role
        | Registry::RoleKnown
        | Registry::Subjects
        | Registry::AggregatedInto
        | Registry::CloudIdentities
        | Registry::KubeletPath
        | Registry::PodSecurity => AbstractValue::Missing,
    }
}

/// What is known about the value at a path of keys.
fn abstract_value_at(path: &[String], event: &HypotheticalEvent<'_>) -> AbstractValue {
    let HypotheticalEvent { request, scenario, stage, .. } = *event;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let part = |text: &str| if text.is_empty() { AbstractValue::Missing } else { AbstractValue::text(text) };
    match &*path {
        ["kind"] => AbstractValue::text("Event"),
        ["apiVersion"] => AbstractValue::text("audit.k8s.io/v1"),
        // The level follows from the policy; some level satisfies a rule that reads it.
        ["level"] => AbstractValue::There,
        ["stage"] => AbstractValue::text(stage.name()),
        ["verb"] => AbstractValue::text(&request.verb),
        ["objectRef", ..] if !request.is_resource() => AbstractValue::Missing,
        ["objectRef", "resource"] if request.resource == OTHER => AbstractValue::Other,
        ["objectRef", "subresource"] if request.subresource == OTHER => AbstractValue::Other,
        ["objectRef", "resource"] => part(&request.resource),
        ["objectRef", "subresource"] => part(&request.subresource),
        ["objectRef", "apiGroup"] if request.group == UNKNOWN_GROUP => AbstractValue::Unknown,
        ["objectRef", "apiGroup"] => part(&request.group),
        ["objectRef", "namespace"] => match &scenario.place {
            NamespaceKind::Anywhere => AbstractValue::Unknown,
            NamespaceKind::Cluster => AbstractValue::Missing,
            NamespaceKind::Other => AbstractValue::Other,
            NamespaceKind::Named(name) => part(name),
        },
        ["objectRef", "name"] => match &scenario.name {
            Name::Any => AbstractValue::Unknown,
            // The apiserver takes the name of a new object from the body.
            Name::Absent if request.verb == "create" && stage != Stage::RequestReceived => {
                AbstractValue::Unknown
            }
            Name::Absent => AbstractValue::Missing,
            Name::Other => AbstractValue::Other,
            Name::Named(name) => part(name),
        },
        ["user", "username"] => match &scenario.actor.name {
            UserName::Any => AbstractValue::Unknown,
            UserName::Other => AbstractValue::Other,
            UserName::StartsWith(start) => AbstractValue::StartsWith(start.clone()),
            UserName::Known(name) => AbstractValue::text(name),
        },
        ["user", "groups"] if scenario.actor.groups.is_empty() => AbstractValue::Unknown,
        ["user", "groups"] => AbstractValue::Has(scenario.actor.groups.clone()),
        ["requestURI"] if request.is_resource() => {
            // A client may percent-encode any character except the first slash; no rule compares with such text.
            let root = match &*request.group {
                "" => "/api/",
                UNKNOWN_GROUP => "/api",
                _ => "/apis/",
            };
            AbstractValue::StartsWith(root.to_owned())
        }
        ["requestURI"] => AbstractValue::StartsWith(request.path.clone()),
        ["auditID" | "userAgent" | "sourceIPs" | "stageTimestamp" | "requestReceivedTimestamp"] => {
            AbstractValue::There
        }
        ["responseStatus", ..] if stage == Stage::RequestReceived => AbstractValue::Missing,
        ["responseStatus", "code"] => AbstractValue::There,
        // Authorization happens after RequestReceived is logged.
        ["annotations", "authorization.k8s.io/decision" | "authorization.k8s.io/reason"]
            if stage == Stage::RequestReceived =>
        {
            AbstractValue::Missing
        }
        _ => AbstractValue::Unknown,
    }
}
