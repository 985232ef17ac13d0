//! The catalog of fields: name, type, argument and source of every field that a rule may use.
//!
//! The table is data: name resolution checks rules against it, the engine compiles each [`Source`] to an extraction, and `pullwatch rules
//! fields` prints it. It must not depend on any event.

use crate::detection::audit::time::Clock;

/// The type of a field in the rule language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A string. JSON numbers, booleans, null, objects and arrays are read as compact JSON.
    Text,
    /// Strings, for `exists`, `in` and `intersects`, or `len()` and `join()`.
    List,
    /// An unsigned number.
    Number,
    /// A time, in nanoseconds since 1970.
    Time,
}

impl Kind {
    /// Returns the name in help and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::List => "list",
            Kind::Number => "number",
            Kind::Time => "time",
        }
    }
}

/// The argument of a field, in brackets after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argument {
    None,
    /// An optional index that selects one element.
    Index,
    /// A required key.
    Key,
}

/// The lists of containers of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Containers {
    /// `spec.containers`
    Main,
    /// `spec.initContainers`
    Init,
    /// `spec.ephemeralContainers`
    Ephemeral,
}

impl Containers {
    /// Returns the key in `requestObject.spec`.
    pub const fn key(self) -> &'static str {
        match self {
            Containers::Main => "containers",
            Containers::Init => "initContainers",
            Containers::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The part of each container that a field reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerPart {
    /// The value at a path; containers without one are skipped.
    Path(&'static [&'static str]),
    /// The image. If any container has none, the field is missing.
    Image,
    /// The image without tag and digest. If any container has none, the field is missing.
    Repository,
    /// An array of strings, joined by spaces.
    Joined(&'static str),
    /// Every port's `hostPort`, else its `containerPort`.
    HostPort,
    /// The container's own value of the key, else that of the pod spec, else 0. The API has these keys only in `securityContext`, which the
    /// reference engine ignores; this does the same, to match the same events.
    Effective(&'static str),
}

/// The subjects of a role binding that a field reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subjects {
    /// Names of subjects of kind `User`.
    Users,
    /// Names of subjects of kind `Group`.
    Groups,
    /// Names of subjects of kind `ServiceAccount`.
    ServiceAccounts,
    /// `namespace:name` of subjects of kind `ServiceAccount`.
    NamespacedServiceAccounts,
}

/// The source of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The value at a path of object keys.
    Path(&'static [&'static str]),
    /// The elements of the array at a path of object keys, each as its text.
    Elements(&'static [&'static str]),
    /// The value at the JSON pointer (RFC 6901) given as the argument.
    Pointer,
    /// The whole event, indented.
    WholeIndented,
    /// The whole event, unchanged.
    Whole,
    /// The first value of the query parameter given as the argument, percent-decoded.
    UriParameter,
    /// `responseObject.metadata.name` of pods without subresource.
    PodName,
    /// Part of each container of a pod.
    Container(Containers, ContainerPart),
    /// Part of the first container of a pod (deprecated fields).
    FirstContainer(ContainerPart),
    /// `true` if any container is privileged, else `false`.
    AnyPrivileged,
    /// Names of a binding's subjects.
    Subjects(Subjects),
    /// Always `true`.
    AlwaysTrue,
    /// A key of all rules of a role, flattened; with an index, of that rule alone.
    RoleRules(&'static str),
    /// `hostPath.path` and similar: the value at a path of each volume that has it.
    Volume(&'static [&'static str]),
    /// Every key of each volume but `name`.
    VolumeTypes,
    /// `true` if a `hostPath` equals the argument; an argument that ends in `*` is a prefix.
    HasHostPath,
    /// The event's time, in nanoseconds since 1970.
    Nanoseconds,
    /// The event's time in whole seconds since 1970.
    Seconds,
    /// The nanoseconds within the event's second.
    SubsecondNanoseconds,
    /// The event's time, formatted.
    Clock(Clock),
    /// The event's position in the input, from 1.
    Position,
    /// A constant text.
    Constant(&'static str),
    /// The name of the host that pullwatch runs on.
    Hostname,
    /// The name of the cluster.
    Cluster,
    /// The last of `sourceIPs`: the address of the peer.
    ClientAddress,
    /// The network of the client.
    ClientNetwork,
    /// The values of the key given as the argument in `user.extra`.
    Extra,
    /// The kind of the user, determined from the form of its name.
    UserKind,
    /// The name of the user, and that of the impersonated user.
    Actor,
    /// Whether a cluster component uses one of its own programs.
    UserProgram,
    /// Whether the user agent is that of a client that people or scripts use.
    Interactive,
    /// Whether the event is truncated.
    Truncated,
    /// Whether the event was truncated before its object.
    TargetMissing,
    /// Names of members that are longer than usual.
    Oversized,
    /// The first value of `user.extra` of this key.
    UserExtra(&'static str),
    /// Whether the request succeeded.
    Outcome,
    /// A property of the registry credentials that the event exposed.
    Exposure(ExposureField),
    /// A property of the event that is about registry credentials.
    Registry(Registry),
    /// How a read of secrets compares with the profile of its identity.
    Reader(ReaderField),
    /// The node that the client runs on.
    ClientNode(ClientNodeField),
    /// A property of the window of a correlation; no event has it.
    Correlation(Correlation),
}

/// Properties of the window of a correlation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Correlation {
    Count,
    ValueCount,
    Values,
    First,
    Last,
    Rules,
    Timespan,
}

/// Properties of the registry credentials that an event exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ExposureField {
    Kind,
    Scope,
    Secrets,
    Count,
    Hosts,
    Usernames,
    Evidence,
    Truncated,
}

/// Properties of an event about registry credentials and what protects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Registry {
    ByType,
    OwnDeletion,
    Target,
    Copied,
    Copies,
    Referenced,
    Named,
    ImageHosts,
    Granted,
    Privileges,
    Role,
    RoleKnown,
    CertificateUser,
    Subjects,
    AggregatedInto,
    PullSecrets,
    HostPaths,
    HostPrivileges,
    Replicated,
    Emptied,
    CloudIdentities,
    KubeletPath,
    PodSecurity,
    Evicted,
    DryRun,
}

impl Registry {
    /// Whether its value depends on the request object or the response object.
    pub const fn reads_objects(self) -> bool {
        match self {
            Registry::Copied
            | Registry::Copies
            | Registry::Referenced
            | Registry::Named
            | Registry::ImageHosts
            | Registry::Granted
            | Registry::Privileges
            | Registry::Role
            | Registry::RoleKnown
            | Registry::CertificateUser
            | Registry::Subjects
            | Registry::AggregatedInto
            | Registry::PullSecrets
            | Registry::HostPaths
            | Registry::HostPrivileges
            | Registry::Replicated
            | Registry::Emptied
            | Registry::CloudIdentities
            | Registry::PodSecurity => true,
            Registry::ByType
            | Registry::OwnDeletion
            | Registry::Target
            | Registry::KubeletPath
            | Registry::Evicted
            | Registry::DryRun => false,
        }
    }

    /// Whether its value depends on what earlier events showed.
    pub const fn depends_on_cluster_state(self) -> bool {
        match self {
            Registry::OwnDeletion
            | Registry::Copies
            | Registry::Referenced
            | Registry::Named
            | Registry::Granted
            | Registry::Privileges
            | Registry::RoleKnown
            | Registry::Subjects
            | Registry::HostPrivileges
            | Registry::KubeletPath
            | Registry::PodSecurity
            | Registry::Evicted => true,
            Registry::ByType
            | Registry::Target
            | Registry::Copied
            | Registry::ImageHosts
            | Registry::Role
            | Registry::CertificateUser
            | Registry::AggregatedInto
            | Registry::PullSecrets
            | Registry::HostPaths
            | Registry::Replicated
            | Registry::Emptied
            | Registry::CloudIdentities
            | Registry::DryRun => false,
        }
    }
}

/// How a read compares with the earlier reads of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReaderField {
    Status,
    IsNew,
    NewVerb,
    NewScope,
    NewProgram,
    NewClient,
    NewCredential,
    Deviation,
    Repeats,
    DaysSeen,
    Trusted,
    Program,
    Network,
    Scope,
    Controller,
    UsedOnNode,
}

/// The node that a client runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientNodeField {
    /// The only node with the client's address.
    Name,
    /// Whether it is the node of the client's token or certificate.
    IsOwn,
}

/// A field of the rule language.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// The name in rules, such as `ka.user.name`.
    pub name: &'static str,
    pub kind: Kind,
    pub argument: Argument,
    pub source: Source,
    /// Description in one line.
    pub reads: &'static str,
}

const fn text(name: &'static str, source: Source, reads: &'static str) -> Field {
    Field { name, kind: Kind::Text, argument: Argument::None, source, reads }
}

const fn key(name: &'static str, source: Source, reads: &'static str) -> Field {
    Field { name, kind: Kind::Text, argument: Argument::Key, source, reads }
}

const fn list(name: &'static str, source: Source, reads: &'static str) -> Field {
    Field { name, kind: Kind::List, argument: Argument::None, source, reads }
}

const fn indexed(name: &'static str, source: Source, reads: &'static str) -> Field {
    Field { name, kind: Kind::List, argument: Argument::Index, source, reads }
}

const fn number(name: &'static str, source: Source, reads: &'static str) -> Field {
    Field { name, kind: Kind::Number, argument: Argument::None, source, reads }
}

/// Defines the fields that each list of containers has.
macro_rules! containers {
    ($prefix:literal, $which:expr) => {
        [
            indexed(
                concat!($prefix, ".name"),
                Source::Container($which, ContainerPart::Path(&["name"])),
                "each container's name",
            ),
            indexed(
                concat!($prefix, ".image"),
                Source::Container($which, ContainerPart::Image),
                "each container's image; missing if any container has none",
            ),
            indexed(
                concat!($prefix, ".image.repository"),
                Source::Container($which, ContainerPart::Repository),
                "each container's image without tag and digest; missing if any container has none",
            ),
            indexed(
                concat!($prefix, ".command"),
                Source::Container($which, ContainerPart::Joined("command")),
                "each container's command, joined by spaces",
            ),
            indexed(
                concat!($prefix, ".args"),
                Source::Container($which, ContainerPart::Joined("args")),
                "each container's arguments, joined by spaces",
            ),
            indexed(
                concat!($prefix, ".privileged"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "privileged"])),
                "each container's securityContext.privileged, where set",
            ),
            indexed(
                concat!($prefix, ".allow_privilege_escalation"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "allowPrivilegeEscalation"])),
                "each container's securityContext.allowPrivilegeEscalation, where set",
            ),
            indexed(
                concat!($prefix, ".read_only_fs"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "readOnlyRootFilesystem"])),
                "each container's securityContext.readOnlyRootFilesystem, where set",
            ),
            indexed(
                concat!($prefix, ".run_as_user"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "runAsUser"])),
                "each container's securityContext.runAsUser, where set",
            ),
            indexed(
                concat!($prefix, ".run_as_group"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "runAsGroup"])),
                "each container's securityContext.runAsGroup, where set",
            ),
            indexed(
                concat!($prefix, ".proc_mount"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "procMount"])),
                "each container's securityContext.procMount, where set",
            ),
            indexed(
                concat!($prefix, ".eff_run_as_user"),
                Source::Container($which, ContainerPart::Effective("runAsUser")),
                "each container's runAsUser beside its image, else the spec's, else 0; for securityContext use run_as_user",
            ),
            indexed(
                concat!($prefix, ".eff_run_as_group"),
                Source::Container($which, ContainerPart::Effective("runAsGroup")),
                "each container's runAsGroup beside its image, else the spec's, else 0; for securityContext use run_as_group",
            ),
            indexed(
                concat!($prefix, ".add_capabilities"),
                Source::Container($which, ContainerPart::Path(&["securityContext", "capabilities", "add"])),
                "each container's added capabilities, as JSON",
            ),
        ]
    };
}

static GENERAL: [Field; 67] = [
    text("ka.auditid", Source::Path(&["auditID"]), "auditID, which the client may have chosen"),
    text("ka.stage", Source::Path(&["stage"]), "RequestReceived, ResponseStarted, ResponseComplete or Panic"),
    text(
        "ka.verb",
        Source::Path(&["verb"]),
        "verb: get, list, watch, create, update, patch, delete, deletecollection …",
    ),
    text("ka.uri", Source::Path(&["requestURI"]), "requestURI as the client spelt it"),
    key(
        "ka.uri.param",
        Source::UriParameter,
        "first value of that query parameter of requestURI, percent-decoded",
    ),
    text("ka.useragent", Source::Path(&["userAgent"]), "userAgent, chosen by the client"),
    text("ka.user.name", Source::Path(&["user", "username"]), "user.username, the authenticated user"),
    list("ka.user.groups", Source::Elements(&["user", "groups"]), "user.groups"),
    text("ka.impuser.name", Source::Path(&["impersonatedUser", "username"]), "impersonatedUser.username"),
    indexed(
        "ka.sourceips",
        Source::Elements(&["sourceIPs"]),
        "sourceIPs; the client can forge all but the last",
    ),
    text(
        "ka.target.name",
        Source::Path(&["objectRef", "name"]),
        "objectRef.name, absent for lists and watches",
    ),
    text("ka.target.namespace", Source::Path(&["objectRef", "namespace"]), "objectRef.namespace"),
    text(
        "ka.target.resource",
        Source::Path(&["objectRef", "resource"]),
        "objectRef.resource, in the plural: secrets, pods …",
    ),
    text(
        "ka.target.subresource",
        Source::Path(&["objectRef", "subresource"]),
        "objectRef.subresource: exec, token, status …",
    ),
    text("ka.target.pod.name", Source::PodName, "responseObject.metadata.name of pods without subresource"),
    text(
        "ka.auth.decision",
        Source::Path(&["annotations", "authorization.k8s.io/decision"]),
        "annotation authorization.k8s.io/decision: allow or forbid",
    ),
    text(
        "ka.auth.reason",
        Source::Path(&["annotations", "authorization.k8s.io/reason"]),
        "annotation authorization.k8s.io/reason",
    ),
    text(
        "ka.auth.openshift.decision",
        Source::Path(&["annotations", "authentication.openshift.io/decision"]),
        "annotation authentication.openshift.io/decision",
    ),
    text(
        "ka.auth.openshift.username",
        Source::Path(&["annotations", "authentication.openshift.io/username"]),
        "annotation authentication.openshift.io/username",
    ),
    text(
        "ka.validations.admission.policy.failure",
        Source::Path(&["annotations", "validation.policy.admission.k8s.io/validation_failure"]),
        "annotation validation.policy.admission.k8s.io/validation_failure",
    ),
    text(
        "ka.security.pod.violations",
        Source::Path(&["annotations", "pod-security.kubernetes.io/audit-violations"]),
        "annotation pod-security.kubernetes.io/audit-violations",
    ),
    text(
        "ka.cluster.name",
        Source::Cluster,
        "annotation cluster_name, else the cluster that the wrapper of the event names, else the configured one (--cluster, sources[].cluster)",
    ),
    text(
        "ka.response.code",
        Source::Path(&["responseStatus", "code"]),
        "responseStatus.code, the HTTP status",
    ),
    text(
        "ka.response.reason",
        Source::Path(&["responseStatus", "reason"]),
        "responseStatus.reason: Forbidden, NotFound …",
    ),
    text(
        "ka.resp.name",
        Source::Path(&["responseObject", "metadata", "name"]),
        "responseObject.metadata.name",
    ),
    list(
        "ka.req.binding.subjects",
        Source::Elements(&["requestObject", "subjects"]),
        "requestObject.subjects, each as JSON",
    ),
    list(
        "ka.req.binding.subjects.user_names",
        Source::Subjects(Subjects::Users),
        "names of a binding's subjects of kind User",
    ),
    list(
        "ka.req.binding.subjects.group_names",
        Source::Subjects(Subjects::Groups),
        "names of a binding's subjects of kind Group",
    ),
    list(
        "ka.req.binding.subjects.serviceaccount_names",
        Source::Subjects(Subjects::ServiceAccounts),
        "names of a binding's subjects of kind ServiceAccount",
    ),
    list(
        "ka.req.binding.subjects.serviceaccount_ns_names",
        Source::Subjects(Subjects::NamespacedServiceAccounts),
        "namespace:name of a binding's subjects of kind ServiceAccount",
    ),
    text(
        "ka.req.binding.role",
        Source::Path(&["requestObject", "roleRef", "name"]),
        "requestObject.roleRef.name",
    ),
    key("ka.req.binding.subject.has_name", Source::AlwaysTrue, "always true (deprecated)"),
    text("ka.req.configmap.name", Source::Path(&["objectRef", "name"]), "objectRef.name"),
    text("ka.req.configmap.obj", Source::Path(&["requestObject", "data"]), "requestObject.data as JSON"),
    list(
        "ka.req.role.rules",
        Source::Elements(&["requestObject", "rules"]),
        "requestObject.rules, each as JSON",
    ),
    indexed(
        "ka.req.role.rules.apiGroups",
        Source::RoleRules("apiGroups"),
        "apiGroups of all rules, or of rule [i]",
    ),
    indexed(
        "ka.req.role.rules.resources",
        Source::RoleRules("resources"),
        "resources of all rules, or of rule [i]",
    ),
    indexed("ka.req.role.rules.verbs", Source::RoleRules("verbs"), "verbs of all rules, or of rule [i]"),
    indexed(
        "ka.req.role.rules.nonResourceURLs",
        Source::RoleRules("nonResourceURLs"),
        "nonResourceURLs of all rules, or of rule [i]",
    ),
    text("ka.req.service.type", Source::Path(&["requestObject", "spec", "type"]), "requestObject.spec.type"),
    indexed(
        "ka.req.service.ports",
        Source::Elements(&["requestObject", "spec", "ports"]),
        "requestObject.spec.ports, each as JSON",
    ),
    text(
        "ka.req.pod.host_ipc",
        Source::Path(&["requestObject", "spec", "hostIPC"]),
        "requestObject.spec.hostIPC",
    ),
    text(
        "ka.req.pod.host_network",
        Source::Path(&["requestObject", "spec", "hostNetwork"]),
        "requestObject.spec.hostNetwork",
    ),
    text(
        "ka.req.pod.host_pid",
        Source::Path(&["requestObject", "spec", "hostPID"]),
        "requestObject.spec.hostPID",
    ),
    text(
        "ka.req.container.host_network",
        Source::Path(&["requestObject", "spec", "hostNetwork"]),
        "requestObject.spec.hostNetwork (deprecated)",
    ),
    text(
        "ka.req.pod.run_as_user",
        Source::Path(&["requestObject", "spec", "securityContext", "runAsUser"]),
        "requestObject.spec.securityContext.runAsUser",
    ),
    text(
        "ka.req.pod.run_as_group",
        Source::Path(&["requestObject", "spec", "securityContext", "runAsGroup"]),
        "requestObject.spec.securityContext.runAsGroup",
    ),
    text(
        "ka.req.pod.fs_group",
        Source::Path(&["requestObject", "spec", "securityContext", "fsGroup"]),
        "requestObject.spec.securityContext.fsGroup",
    ),
    list(
        "ka.req.pod.supplemental_groups",
        Source::Elements(&["requestObject", "spec", "securityContext", "supplementalGroups"]),
        "requestObject.spec.securityContext.supplementalGroups",
    ),
    indexed(
        "ka.req.pod.volumes.hostpath",
        Source::Volume(&["hostPath", "path"]),
        "hostPath.path of each volume that has it",
    ),
    indexed(
        "ka.req.pod.volumes.flexvolume_driver",
        Source::Volume(&["flexVolume", "driver"]),
        "flexVolume.driver of each volume that has it",
    ),
    indexed(
        "ka.req.pod.volumes.volume_type",
        Source::VolumeTypes,
        "every key of a volume but name: secret, hostPath …",
    ),
    key(
        "ka.req.volume.hostpath",
        Source::HasHostPath,
        "true if a hostPath equals the key, or starts with it where it ends in *; else false (deprecated)",
    ),
    text(
        "ka.req.container.image",
        Source::FirstContainer(ContainerPart::Image),
        "the first container's image (deprecated)",
    ),
    text(
        "ka.req.container.image.repository",
        Source::FirstContainer(ContainerPart::Repository),
        "the first container's image without tag and digest (deprecated)",
    ),
    text(
        "ka.req.container.privileged",
        Source::AnyPrivileged,
        "true if any container is privileged, else false (deprecated)",
    ),
    key("jevt.value", Source::Pointer, "the JSON pointer (RFC 6901) into the event"),
    key("json.value", Source::Pointer, "the JSON pointer (RFC 6901) into the event"),
    text("jevt.obj", Source::WholeIndented, "the whole event, indented by two spaces"),
    text("json.obj", Source::WholeIndented, "the whole event, indented by two spaces"),
    text("jevt.rawtime", Source::Nanoseconds, "event time in nanoseconds since 1970"),
    text("json.rawtime", Source::Nanoseconds, "event time in nanoseconds since 1970"),
    number("evt.num", Source::Position, "position of the event in the input, from 1"),
    text("evt.source", Source::Constant("k8s_audit"), "k8s_audit"),
    text("evt.pluginname", Source::Constant("k8saudit"), "k8saudit"),
    text("evt.plugininfo", Source::Whole, "the whole event"),
    text("evt.hostname", Source::Hostname, "name of the host that pullwatch runs on"),
];

static TIMES: [Field; 8] = [
    Field {
        name: "evt.time",
        kind: Kind::Time,
        argument: Argument::None,
        source: Source::Clock(Clock::Time),
        reads: "event time (stageTimestamp, UTC): 10:00:00.654321000",
    },
    text("evt.time.s", Source::Clock(Clock::TimeSeconds), "event time: 10:00:00"),
    text("evt.time.iso8601", Source::Clock(Clock::Iso8601), "event time: 2026-11-23T10:00:00.654321000+0000"),
    text("evt.datetime", Source::Clock(Clock::DateTime), "event time: 2026-11-23 10:00:00.654321000"),
    text("evt.datetime.s", Source::Clock(Clock::DateTimeSeconds), "event time: 2026-11-23 10:00:00"),
    number("evt.rawtime", Source::Nanoseconds, "event time in nanoseconds since 1970"),
    number("evt.rawtime.s", Source::Seconds, "event time in whole seconds since 1970"),
    number("evt.rawtime.ns", Source::SubsecondNanoseconds, "the nanoseconds within the event's second"),
];

static MAIN_CONTAINERS: [Field; 14] = containers!("ka.req.pod.containers", Containers::Main);
static INIT_CONTAINERS: [Field; 14] = containers!("ka.req.pod.initContainers", Containers::Init);
static EPHEMERAL_CONTAINERS: [Field; 14] =
    containers!("ka.req.pod.ephemeralContainers", Containers::Ephemeral);

/// Defined separately, because ephemeral containers have no ports.
static HOST_PORTS: [Field; 2] = [
    indexed(
        "ka.req.pod.containers.host_port",
        Source::Container(Containers::Main, ContainerPart::HostPort),
        "every port's hostPort, else its containerPort",
    ),
    indexed(
        "ka.req.pod.initContainers.host_port",
        Source::Container(Containers::Init, ContainerPart::HostPort),
        "every port's hostPort, else its containerPort",
    ),
];

/// Fields that the reference engine does not have.
static AUDIT: [Field; 21] = [
    text("audit.level", Source::Path(&["level"]), "level: Metadata, Request or RequestResponse"),
    text(
        "audit.client",
        Source::ClientAddress,
        "the last of sourceIPs: the address of the peer, the only one that the client cannot forge",
    ),
    text(
        "audit.client.network",
        Source::ClientNetwork,
        "where audit.client is: nodes, pods or outside, by `networks` of the configuration; absent without it",
    ),
    text(
        "audit.client.node",
        Source::ClientNode(ClientNodeField::Name),
        "the node for which alone the inventory declares audit.client, or whose kubelet alone came from there, for an hour at least; only for requests by nodes and by tokens of pods for secrets, tokens, certificates, permissions or access to pods",
    ),
    text(
        "audit.client.own_node",
        Source::ClientNode(ClientNodeField::IsOwn),
        "true if audit.client.node is the node of the pod that the token is bound to, or the node that the user is; false if it is another one, and the former has addresses of its own, declared or learned; absent if that is unknown",
    ),
    text("audit.target.group", Source::Path(&["objectRef", "apiGroup"]), "objectRef.apiGroup"),
    text("audit.user.uid", Source::Path(&["user", "uid"]), "user.uid"),
    Field {
        name: "audit.user.extra",
        kind: Kind::List,
        argument: Argument::Key,
        source: Source::Extra,
        reads: "user.extra of that key, such as authentication.kubernetes.io/pod-name",
    },
    text(
        "audit.user.credential_id",
        Source::UserExtra("authentication.kubernetes.io/credential-id"),
        "which certificate (X509SHA256=…) or token (JTI=…) the user authenticated with, from Kubernetes 1.30 on",
    ),
    text(
        "audit.user.pod",
        Source::UserExtra("authentication.kubernetes.io/pod-name"),
        "the pod that the token of a service account is bound to; absent for tokens that no kubelet requested",
    ),
    text(
        "audit.user.node",
        Source::UserExtra("authentication.kubernetes.io/node-name"),
        "the node of the pod that the token of a service account is bound to",
    ),
    text(
        "audit.user.kind",
        Source::UserKind,
        "by the shape of user.username: node (if user.groups has system:nodes), serviceaccount, system (a part of the cluster), anonymous, human",
    ),
    text(
        "audit.user.program",
        Source::UserProgram,
        "of a component of the control plane (system:apiserver, system:kube-controller-manager) or a service account of the catalog of platform controllers: expected if the user agent is that of one of its programs, else unexpected; absent for other users",
    ),
    text(
        "audit.interactive",
        Source::Interactive,
        "true if the user agent is that of a client that people use or the default of a library for scripts (kubectl, curl, helm, python-requests, Go-http-client …), or there is none; else false",
    ),
    list(
        "audit.impuser.groups",
        Source::Elements(&["impersonatedUser", "groups"]),
        "impersonatedUser.groups",
    ),
    text(
        "audit.actor",
        Source::Actor,
        "user.username, followed by ` as ` and impersonatedUser.username if the user is impersonated, or by ` (outside of its group)` if it has the name of a service account and not its groups, or by ` (unexpected program)` if audit.user.program is unexpected",
    ),
    text(
        "audit.truncated",
        Source::Truncated,
        "true if the event is truncated, or the apiserver omitted its objects; else false",
    ),
    text(
        "audit.target_missing",
        Source::TargetMissing,
        "true if the event was truncated before objectRef, so that ka.target.* are read from the request URI as far as it names an object; else false",
    ),
    list(
        "audit.oversized",
        Source::Oversized,
        "members that the client filled with text of a suspicious length: auditID, requestURI, impersonatedUser, sourceIPs, userAgent",
    ),
    text(
        "audit.outcome",
        Source::Outcome,
        "success (responseStatus.code is 2xx, or 101 for an upgraded connection), unknown (no code is logged, or the time was up: 504), else failure",
    ),
    text(
        "audit.dry_run",
        Source::Registry(Registry::DryRun),
        "true if the request changes nothing because it is a dry run, unknown if its options are not logged (deletions), else false",
    ),
];

static REGISTRY: [Field; 32] = [
    text(
        "registry.exposure",
        Source::Exposure(ExposureField::Kind),
        "what the event exposed: payload (the response contained credentials), presumed (it may have, but is not in the log), metadata (only their names), denied, none",
    ),
    text(
        "registry.scope",
        Source::Exposure(ExposureField::Scope),
        "scope of the request: secret, namespace, cluster",
    ),
    list(
        "registry.secrets",
        Source::Exposure(ExposureField::Secrets),
        "the credentials, as namespace/name, as far as the event shows them",
    ),
    number("registry.count", Source::Exposure(ExposureField::Count), "number of credentials"),
    list(
        "registry.hosts",
        Source::Exposure(ExposureField::Hosts),
        "the registries that the credentials are for",
    ),
    list(
        "registry.usernames",
        Source::Exposure(ExposureField::Usernames),
        "the user names in the credentials",
    ),
    text(
        "registry.evidence",
        Source::Exposure(ExposureField::Evidence),
        "why the secrets count as registry credentials: type (observed), inventory (declared), content (its data), reference (named by imagePullSecrets), same-name (a credential of another namespace has its name), name (matches a name pattern)",
    ),
    text(
        "registry.by_type",
        Source::Registry(Registry::ByType),
        "true if a field selector of the request selects registry credentials only; else false",
    ),
    text(
        "registry.own_deletion",
        Source::Registry(Registry::OwnDeletion),
        "true if the identity has itself asked for the deletion of the secret that the request names; else false",
    ),
    text(
        "registry.target",
        Source::Registry(Registry::Target),
        "the secret that the request names, as namespace/name",
    ),
    list(
        "registry.copied",
        Source::Registry(Registry::Copied),
        "keys of a written secret or config map that hold a docker configuration under another type, or members of a written custom resource that hold one",
    ),
    list(
        "registry.copies",
        Source::Registry(Registry::Copies),
        "config maps and custom resources, as namespace/name, that hold a registry credential and that the response contained, or, where it is not logged, may have contained",
    ),
    list(
        "registry.referenced",
        Source::Registry(Registry::Referenced),
        "credentials, as namespace/name, that a created or changed pod or workload uses as a volume or in its environment, and those of a pod that is accessed (exec, attach …)",
    ),
    list(
        "registry.named",
        Source::Registry(Registry::Named),
        "registry credentials (namespace/name), known by more than their name, that a created or changed custom resource names other than to pull images; NAMESPACE/* if some are unknown",
    ),
    list(
        "registry.image_hosts",
        Source::Registry(Registry::ImageHosts),
        "the registries of the images of a created or changed pod or workload",
    ),
    list(
        "registry.granted",
        Source::Registry(Registry::Granted),
        "verbs on secrets that a created or changed role grants, or the role of a created or changed binding",
    ),
    list(
        "registry.privileges",
        Source::Registry(Registry::Privileges),
        "permissions of a created or changed role, or of the role of a created or changed binding, through which its subjects gain others: escalate, bind, impersonate, nodes/proxy, pods/exec, workloads (create pods or their templates) …",
    ),
    text(
        "registry.role",
        Source::Registry(Registry::Role),
        "the role of a created or changed binding, as far as the event shows it",
    ),
    text(
        "registry.role_known",
        Source::Registry(Registry::RoleKnown),
        "of a created or changed binding: true if it is known what its role grants, because the role is built in, or the log or an inventory has shown it; else false",
    ),
    list(
        "registry.subjects",
        Source::Registry(Registry::Subjects),
        "the users, groups and service accounts (as user names) of a created or changed binding, or that a patch adds to one; of a created or changed role, those of its known bindings that stand for all clients, users or service accounts",
    ),
    list(
        "registry.aggregated_into",
        Source::Registry(Registry::AggregatedInto),
        "the default roles (view, edit, admin) that contain a created or changed cluster role, by its labels",
    ),
    text(
        "registry.certificate_user",
        Source::Registry(Registry::CertificateUser),
        "the user name (common name) in a created certificate signing request; `several:` and all of them if there are different ones, (unreadable) without one",
    ),
    list(
        "registry.pull_secrets",
        Source::Registry(Registry::PullSecrets),
        "names in imagePullSecrets of a created or changed service account or workload; * if some are unknown",
    ),
    list(
        "registry.host_paths",
        Source::Registry(Registry::HostPaths),
        "paths of the host that a created or changed workload or persistent volume mounts and under which credentials are; * if some are unknown",
    ),
    list(
        "registry.host_privileges",
        Source::Registry(Registry::HostPrivileges),
        "rights over its node of a created or changed workload, by settings (privileged, hostPID, hostProcess, procMount, capabilities) and by writable paths from which the host runs code, or of a pod that exec, attach, portforward or ephemeralcontainers enters; * if some are unknown",
    ),
    list(
        "registry.replicated",
        Source::Registry(Registry::Replicated),
        "what asks a controller for copies of secrets: annotations of a created or changed secret (Kubernetes Replicator, Reflector, Config Syncer) as key=value, `clone` for a policy of Kyverno",
    ),
    text(
        "registry.emptied",
        Source::Registry(Registry::Emptied),
        "whether an update or a patch left a role without rules or a binding without subjects (true/false)",
    ),
    list(
        "registry.cloud_identities",
        Source::Registry(Registry::CloudIdentities),
        "annotations of a created or changed service account that give it a role of a cloud (EKS, GKE, AKS, ACK), as key=value",
    ),
    text(
        "registry.kubelet_path",
        Source::Registry(Registry::KubeletPath),
        "the path of the kubelet's API that a request through nodes/proxy asks for, in the first event of the request",
    ),
    text(
        "registry.pod_security",
        Source::Registry(Registry::PodSecurity),
        "how a change of a namespace changes what Pod Security enforces there: removed, lowered, raised",
    ),
    text(
        "registry.truncated",
        Source::Exposure(ExposureField::Truncated),
        "true if registry.secrets, registry.hosts or registry.usernames leave some out, else false",
    ),
    list(
        "registry.evicted",
        Source::Registry(Registry::Evicted),
        "credentials known by type or content, as namespace/name, that had to be forgotten to stay within memory limits when the event was learned from",
    ),
];

static READER: [Field; 16] = [
    text(
        "reader.status",
        Source::Reader(ReaderField::Status),
        "how a read of secrets (get, list, watch, and writes that are answered with what is stored: patch, delete, deletecollection, dry runs), or a create or update of one by a service account, compares with what its identity did before: routine (the same on three distinct days, or what a well-known platform controller is expected to do), trusted (a person decided so), metadata (a watch after a list that returned no data), new (a service account that is known for less than three days), repeated (the same, and it follows from what was reported that day: the same program and client, and no wider scope), listed (the same, and a list that was reported that day handed over the secret), deviating, mismatch (the account of a platform controller does what the controller does not), unprofiled (no service account)",
    ),
    text(
        "reader.is_new",
        Source::Reader(ReaderField::IsNew),
        "true if the identity, which is user and impersonated user, never read secrets before, else false",
    ),
    text(
        "reader.new_verb",
        Source::Reader(ReaderField::NewVerb),
        "the verb, if it is new to the identity: get where it only listed or watched, or the reverse",
    ),
    text(
        "reader.new_scope",
        Source::Reader(ReaderField::NewScope),
        "the scope, if it is new to the identity: cluster, namespace:NAME or secret:NAMESPACE",
    ),
    text(
        "reader.new_program",
        Source::Reader(ReaderField::NewProgram),
        "the product token of the user agent, if it is new to the identity",
    ),
    text(
        "reader.new_client",
        Source::Reader(ReaderField::NewClient),
        "the network of the client, if it is new to the identity and no new pod explains it; of requests for secrets that failed, too",
    ),
    list(
        "reader.new_credential",
        Source::Reader(ReaderField::NewCredential),
        "the registry credentials, as namespace/name, that the identity reads by name for the first time",
    ),
    list(
        "reader.deviation",
        Source::Reader(ReaderField::Deviation),
        "everything that is new or unexpected: program NAME, verb NAME, scope NAME, client NETWORK, credential NAME",
    ),
    number(
        "reader.repeats",
        Source::Reader(ReaderField::Repeats),
        "number of earlier reads of the same credential, or with the same scope, by the identity on that day, at most 5",
    ),
    number(
        "reader.days_seen",
        Source::Reader(ReaderField::DaysSeen),
        "number of distinct days (UTC) on which the identity read secrets, this one included",
    ),
    text(
        "reader.trusted",
        Source::Reader(ReaderField::Trusted),
        "true if a person decided to trust the identity with this read (`pullwatch readers trust`), else false",
    ),
    text(
        "reader.program",
        Source::Reader(ReaderField::Program),
        "the product token of the user agent: kubectl, argocd-application-controller …; (none) without user agent",
    ),
    text(
        "reader.network",
        Source::Reader(ReaderField::Network),
        "the network of the client: /24 for IPv4, /64 for IPv6, the address itself for loopback",
    ),
    text(
        "reader.scope",
        Source::Reader(ReaderField::Scope),
        "the scope of the read: cluster, namespace:NAME, or secret:NAMESPACE for single secrets of a namespace",
    ),
    text(
        "reader.controller",
        Source::Reader(ReaderField::Controller),
        "the well-known platform controller whose service account the identity is",
    ),
    text(
        "reader.used_on_node",
        Source::Reader(ReaderField::UsedOnNode),
        "of a node that reads one secret: true if the Node authorizer allowed it, because a pod on that node uses the secret; false if RBAC did, although the Node authorizer has allowed such reads in this cluster",
    ),
];

/// Fields for outputs of correlations; rules cannot use them.
static CORRELATION: [Field; 7] = [
    number("correlation.count", Source::Correlation(Correlation::Count), "number of alerts in the window"),
    number(
        "correlation.value_count",
        Source::Correlation(Correlation::ValueCount),
        "number of distinct values of the condition's field in the window",
    ),
    list("correlation.values", Source::Correlation(Correlation::Values), "a sample of these values, sorted"),
    text(
        "correlation.first",
        Source::Correlation(Correlation::First),
        "time of the window's first alert: 2026-11-23 10:00:00Z",
    ),
    text(
        "correlation.last",
        Source::Correlation(Correlation::Last),
        "time of the window's last alert: 2026-11-23 10:00:00Z",
    ),
    list(
        "correlation.rules",
        Source::Correlation(Correlation::Rules),
        "the rules that matched in the window",
    ),
    text("correlation.timespan", Source::Correlation(Correlation::Timespan), "length of the window: 10m"),
];

/// Returns the fields that only the output of a correlation may contain.
pub fn of_correlations() -> impl Iterator<Item = &'static Field> {
    CORRELATION.iter()
}

/// Returns all fields of an event, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Field> {
    GENERAL
        .iter()
        .chain(&MAIN_CONTAINERS)
        .chain(&INIT_CONTAINERS)
        .chain(&EPHEMERAL_CONTAINERS)
        .chain(&HOST_PORTS)
        .chain(&TIMES)
        .chain(&AUDIT)
        .chain(&REGISTRY)
        .chain(&READER)
}

/// Returns the field with this name.
pub fn find(name: &str) -> Option<&'static Field> {
    all().find(|field| field.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().chain(of_correlations()).map(|field| field.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(find("ka.verb").is_some() && find("ka.nosuch").is_none());
        assert!(find("correlation.count").is_none());
    }
}
