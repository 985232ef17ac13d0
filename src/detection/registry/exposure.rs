//! What one event exposed.
//!
//! A read by name says which secret. A list or a watch has no name: what was taken stands in the response, where the
//! policy logs it, or nowhere, and then the read of the whole scope is presumed to be one of the credentials in it.

use serde::{Deserialize, Serialize};

use super::cluster_state::{ClusterState, Evidence, object_name};
use super::docker_config::RegistryLogins;
use super::{is, namespace_of, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{JsonError, Raw, Type};
use crate::detection::audit::uri;
use crate::text::name_patterns::NamePatterns;

/// The types of secrets that hold registry credentials.
pub(super) const TYPES: [&[u8]; 2] = [b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"];

/// The keys of their data.
const KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// Where `kubectl apply` leaves the whole object.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// So many secrets are named; all are counted.
const MOST_NAMED: usize = 1000;

/// How surely credentials were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExposureKind {
    /// Nothing about registry credentials.
    #[default]
    None,
    /// The request was refused.
    Denied,
    /// NamePatterns, and perhaps types, but no content.
    Metadata,
    /// A full read was possible, and the log does not show the answer.
    Presumed,
    /// The answer carried them.
    Payload,
}

impl ExposureKind {
    /// The word in rules and alerts.
    pub const fn name(self) -> &'static str {
        match self {
            ExposureKind::None => "none",
            ExposureKind::Denied => "denied",
            ExposureKind::Metadata => "metadata",
            ExposureKind::Presumed => "presumed",
            ExposureKind::Payload => "payload",
        }
    }
}

/// How much was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadScope {
    /// One secret.
    #[default]
    Secret,
    /// Those of a namespace.
    Namespace,
    /// Those of the cluster.
    Cluster,
}

impl ReadScope {
    /// The word in rules and alerts.
    pub const fn name(self) -> &'static str {
        match self {
            ReadScope::Secret => "secret",
            ReadScope::Namespace => "namespace",
            ReadScope::Cluster => "cluster",
        }
    }
}

/// What an event is about, of registry credentials, and what it exposed of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// How surely they were handed over.
    pub kind: ExposureKind,
    /// How much was asked for.
    pub scope: ReadScope,
    /// Which credentials, as `namespace/name`; at most a thousand.
    pub secrets: Vec<String>,
    /// How many.
    pub count: u64,
    /// How it is known that they are some; the strongest.
    pub evidence: Option<Evidence>,
    /// For which registries, and as whom.
    pub logins: RegistryLogins,
}

/// What a request does to secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Its answer holds what was there before, or what the client need not know.
    Read,
    /// It hands over what is there, if it asks for that, and all that changes.
    Watch,
    /// The client knows what it sends.
    Write,
    /// The answer says no more than that it is done.
    Delete,
}

impl Exposure {
    /// What an event is about and what it exposed. A watch counts once: when it starts, or, where the start is not logged,
    /// when it ends. Without cluster state only the event itself counts.
    ///
    /// What the event shows is learned on the way.
    pub fn of(event: &mut Event<'_>, names: &NamePatterns, cluster_state: Option<&mut ClusterState>) -> Self {
        let object = event.object();
        if !is(object.resource, "secrets") || object.subresource.is_some() {
            return Exposure::default();
        }
        let request = match text(event.get(Member::Verb)).as_deref() {
            // The answer to a patch is the whole secret, and to a deletion of many all of them.
            Some("get" | "list" | "patch" | "deletecollection") => Request::Read,
            Some("watch") => Request::Watch,
            Some("create" | "update") => Request::Write,
            Some("delete") => Request::Delete,
            _ => return Exposure::default(),
        };
        let code = event.path(&["responseStatus", "code"]).map(Raw::bytes);
        let mut reader = Reader { names, cluster_state, found: Exposure::default() };
        let counts = match (text(event.get(Member::Stage)).as_deref(), &mut reader.cluster_state) {
            (Some("ResponseStarted" | "ResponseComplete" | "Panic"), Some(cluster_state))
                if request == Request::Watch =>
            {
                cluster_state.is_first_of_request(event)
            }
            (Some("ResponseStarted"), None) if request == Request::Watch => true,
            // Of a request whose sender is not known there is no other stage.
            (Some("ResponseStarted"), _) => code == Some(b"401"),
            (Some("ResponseComplete" | "Panic"), _) => request != Request::Watch,
            _ => false,
        };
        if !counts {
            return Exposure::default();
        }
        reader.found.scope = match (object.name, object.namespace) {
            (Some(_), _) => ReadScope::Secret,
            (None, _) if matches!(request, Request::Write | Request::Delete) => ReadScope::Secret,
            (None, Some(_)) => ReadScope::Namespace,
            (None, None) => ReadScope::Cluster,
        };
        let place = Asked::of(event);
        match code.and_then(|code| code.first()) {
            Some(b'2') | None => {
                reader.answered(event, request, &place);
                reader.written(event, &place);
            }
            Some(_) => {
                if matches!(code, Some(b"401" | b"403")) {
                    reader.found.kind = ExposureKind::Denied;
                }
                reader.about(&place);
            }
        }
        reader.found
    }

    fn add(&mut self, namespace: &str, name: &str, evidence: Evidence) {
        self.count += 1;
        self.evidence = self.evidence.max(Some(evidence));
        if self.secrets.len() < MOST_NAMED {
            self.secrets.push(format!("{namespace}/{name}"));
        }
    }

    /// The surest decides what the whole event is; credentials that it only names are not those it handed over.
    fn found(&mut self, kind: ExposureKind, namespace: &str, name: &str, evidence: Evidence) {
        if kind == ExposureKind::Payload && self.kind != ExposureKind::Payload {
            self.secrets.clear();
            self.count = 0;
            self.evidence = None;
        }
        if self.kind == ExposureKind::Payload && kind != ExposureKind::Payload {
            return;
        }
        self.kind = kind;
        self.add(namespace, name, evidence);
    }
}

/// What a request named.
struct Asked {
    name: Option<String>,
    /// Empty for the whole cluster.
    namespace: String,
    uri: String,
}

impl Asked {
    fn of(event: &mut Event<'_>) -> Self {
        let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
        let mut namespace = namespace_of(event.object());
        // Over the path of the whole cluster a selector can still ask for one namespace.
        if namespace.is_empty() {
            namespace = terms(&uri)
                .find_map(|(field, equals, value)| (equals && field == "metadata.namespace").then_some(value))
                .unwrap_or_default();
        }
        Asked { name: object_name(event), namespace, uri }
    }
}

/// Reads an event, with what is known.
struct Reader<'n, 'k> {
    names: &'n NamePatterns,
    cluster_state: Option<&'k mut ClusterState>,
    found: Exposure,
}

impl Reader<'_, '_> {
    fn evidence(&mut self, namespace: &str, name: &str) -> Option<Evidence> {
        match &mut self.cluster_state {
            Some(cluster_state) => cluster_state.evidence(namespace, name, self.names),
            None => self.names.matches(name).then_some(Evidence::Name),
        }
    }

    fn answered(&mut self, event: &mut Event<'_>, request: Request, asked: &Asked) {
        let answer = event.get(Member::ResponseObject).filter(|body| body.kind() == Type::Object);
        match request {
            Request::Read | Request::Delete => {
                if let Some(answer) = answer {
                    self.read_answer(answer, asked);
                }
                // A line that is cut may have ended before the credentials.
                let is_cut = event.finish() == Err(JsonError::Truncated);
                let is_shown = answer.is_some() && !(is_cut && self.found.kind == ExposureKind::None);
                if request == Request::Read && !is_shown {
                    self.presume(asked, true);
                } else if self.found.count == 0 && asked.name.is_some() {
                    self.about(asked);
                }
            }
            Request::Watch => self.presume(asked, hands_over_all(&asked.uri)),
            Request::Write => {
                // Two views of the same secret: the request may be without a name, the answer without a type.
                for body in super::bodies(event) {
                    self.read_written(body, asked);
                }
                self.about(asked);
            }
        }
    }

    /// What a request was about that handed nothing over.
    fn about(&mut self, asked: &Asked) {
        if let Some(name) = &asked.name
            && let Some(evidence) = self.evidence(&asked.namespace, name)
        {
            self.found.add(&asked.namespace, name, evidence);
        }
    }

    /// The answer is not in the log: what was asked for decides.
    fn presume(&mut self, asked: &Asked, all: bool) {
        let Asked { name, namespace, uri } = asked;
        match name {
            // By a selector a name can be asked for in all namespaces at once.
            Some(name) if namespace.is_empty() => {
                let known: Vec<(String, Evidence)> = self
                    .known(None)
                    .filter(|(key, _)| key.split_once('/').is_some_and(|(_, own)| own == name))
                    .collect();
                for (key, evidence) in &known {
                    let (namespace, name) = key.split_once('/').unwrap_or_default();
                    self.found.found(ExposureKind::Presumed, namespace, name, *evidence);
                }
                if known.is_empty() && self.names.matches(name) {
                    self.found.found(ExposureKind::Presumed, "*", name, Evidence::Name);
                }
            }
            Some(name) => {
                if let Some(evidence) = self.evidence(namespace, name) {
                    self.found.found(ExposureKind::Presumed, namespace, name, evidence);
                }
            }
            // A selector may ask for other types of secrets only.
            None if !asks_for_other_types(uri) => {
                self.found.kind = ExposureKind::Presumed;
                if all {
                    let scope = (!namespace.is_empty()).then_some(&**namespace);
                    for (key, evidence) in self.known(scope).collect::<Vec<_>>() {
                        let (namespace, name) = key.split_once('/').unwrap_or_default();
                        self.found.add(namespace, name, evidence);
                    }
                }
            }
            None => {}
        }
    }

    fn known(&self, namespace: Option<&str>) -> impl Iterator<Item = (String, Evidence)> {
        let cluster_state = self.cluster_state.as_deref();
        cluster_state
            .into_iter()
            .flat_map(move |cluster_state| cluster_state.credentials(namespace))
            .map(|(key, evidence)| (key.to_owned(), evidence))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn read_answer(&mut self, body: Raw<'_>, asked: &Asked) {
        let kind = text(body.get("kind")).unwrap_or_default();
        match kind.as_str() {
            "Secret" | "PartialObjectMetadata" => self.read_secret(body, None, asked),
            "SecretList" | "PartialObjectMetadataList" => {
                for item in body.items_of("items") {
                    self.read_secret(item, None, asked);
                }
            }
            "Table" => {
                for row in body.items_of("rows") {
                    // The cells of a secret: name, type, number of keys, age.
                    let cell = |at| {
                        row.get("cells")
                            .and_then(|cells: Raw<'_>| cells.items().map_while(Result::ok).nth(at))
                    };
                    match row.get("object").filter(|object| object.kind() == Type::Object) {
                        Some(object) => self.read_secret(object, cell(1), asked),
                        None => {
                            if let Some(name) = text(cell(0)) {
                                self.judge(ExposureKind::Metadata, &asked.namespace, &name, cell(1), false);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// One secret, or its metadata alone; `cell` is its type where a table says it.
    fn read_secret(&mut self, secret: Raw<'_>, cell: Option<Raw<'_>>, asked: &Asked) {
        let [metadata, data, kind] = secret.get_all(["metadata", "data", "type"]);
        let [name, own, annotations] = metadata
            .map(|metadata| metadata.get_all(["name", "namespace", "annotations"]))
            .unwrap_or_default();
        let Some(name) = text(name).or_else(|| asked.name.clone()) else { return };
        let own = text(own);
        let namespace = own.as_deref().unwrap_or(&asked.namespace);
        let data = data.filter(|data| data.members().next().is_some());
        let applied = annotations.and_then(|annotations| annotations.get(APPLIED));
        // `kubectl apply` leaves the whole secret in an annotation, which metadata carries along.
        let applied = applied
            .map(Raw::text)
            .filter(|applied| KEYS.iter().any(|key| memchr::memmem::find(applied, key.as_bytes()).is_some()));
        let exposed =
            if data.is_some() || applied.is_some() { ExposureKind::Payload } else { ExposureKind::Metadata };
        // The type comes last, and may be cut off.
        let has_key = data.is_some_and(|data| KEYS.iter().any(|key| data.get(key).is_some()));
        if self.judge(exposed, namespace, &name, kind.or(cell), has_key) {
            self.found.logins.read(secret);
            if let Some(applied) = applied {
                self.found.logins.read(Raw::assume(&applied));
            }
        }
    }

    /// Remembers when a credential was created or changed. What is only tried changes nothing.
    fn written(&mut self, event: &mut Event<'_>, asked: &Asked) {
        let Some(cluster_state) = &mut self.cluster_state else { return };
        let verb = text(event.get(Member::Verb));
        if let (Some("create" | "update" | "patch"), Some(name), Some(time)) =
            (verb.as_deref(), &asked.name, event.time())
            && uri::lenient_parameters(asked.uri.as_bytes(), b"dryRun").is_empty()
        {
            cluster_state.saw_write(&asked.namespace, name, time, self.names);
        }
    }

    /// Whether a secret is a credential, which is then found.
    fn judge(
        &mut self,
        kind: ExposureKind,
        namespace: &str,
        name: &str,
        seen: Option<Raw<'_>>,
        has_key: bool,
    ) -> bool {
        let evidence = match (seen.and_then(Raw::string), has_key) {
            (Some(seen), _) => {
                let is_credential = TYPES.contains(&&*seen);
                if let Some(cluster_state) = &mut self.cluster_state {
                    cluster_state.saw_type(namespace, name, is_credential, self.names);
                }
                is_credential.then_some(Evidence::Type)
            }
            (None, true) => Some(Evidence::Type),
            (None, false) => self.evidence(namespace, name),
        };
        if let Some(evidence) = evidence {
            self.found.found(kind, namespace, name, evidence);
        }
        evidence.is_some()
    }

    /// A secret that is created or changed.
    fn read_written(&mut self, body: Raw<'_>, asked: &Asked) {
        let name = text(body.path(&["metadata", "name"])).or_else(|| asked.name.clone());
        let (Some(name), Some(seen)) = (name, body.get("type").and_then(Raw::string)) else { return };
        let is_credential = TYPES.contains(&&*seen);
        if let Some(cluster_state) = &mut self.cluster_state {
            cluster_state.saw_type(&asked.namespace, &name, is_credential, self.names);
        }
        if is_credential {
            self.found.logins.read(body);
            if self.found.count == 0 {
                self.found.add(&asked.namespace, &name, Evidence::Type);
            }
        }
    }
}

/// Forgets secrets that are gone: what comes after them by the same name may be something else.
pub(super) fn forget(event: &mut Event<'_>, cluster_state: &mut ClusterState) {
    let object = event.object();
    if !is(object.resource, "secrets") || object.subresource.is_some() || !super::succeeded(event) {
        return;
    }
    match (text(event.get(Member::Verb)).as_deref(), text(object.namespace), text(object.name)) {
        (Some("delete"), Some(namespace), Some(name)) => cluster_state.forget_secret(&namespace, &name),
        // With a selector some stay.
        (Some("deletecollection"), Some(namespace), _) => {
            let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
            if !uri.contains("elector") {
                cluster_state.forget_secrets_of(&namespace);
            }
        }
        _ => {}
    }
}

/// The terms of a request's field selectors: field, whether it is to be equal, and the value. In any encoding: a part of
/// the query that is malformed does not hide the rest, as in Go's `URL.Query`.
fn terms(uri: &str) -> impl Iterator<Item = (String, bool, String)> {
    let selectors = uri::lenient_parameters(uri.as_bytes(), b"fieldSelector");
    let mut terms = Vec::new();
    for selector in selectors {
        for term in String::from_utf8_lossy(&selector).split(',') {
            let Some((field, value)) = term.split_once('=') else { continue };
            let (field, equals) = match field.strip_suffix('!') {
                Some(field) => (field, false),
                None => (field, true),
            };
            let value = value.strip_prefix('=').unwrap_or(value);
            terms.push((field.trim().to_owned(), equals, value.trim().to_owned()));
        }
    }
    terms.into_iter()
}

/// Whether a list asks, by its field selector, for secrets of a type that holds no registry credential.
fn asks_for_other_types(uri: &str) -> bool {
    terms(uri).any(|(field, equals, value)| equals && field == "type" && !TYPES.contains(&value.as_bytes()))
}

/// Whether a request asks, by its field selector, for registry credentials and nothing else.
pub fn selects_credential_types(event: &mut Event<'_>) -> bool {
    let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
    // Not told by `objectRef`: it is missing from a request that was refused early.
    terms(&uri).any(|(field, equals, value)| equals && field == "type" && TYPES.contains(&value.as_bytes()))
}

/// Whether a watch hands over what is there already, before what changes: it does unless it goes on from a version.
fn hands_over_all(uri: &str) -> bool {
    let first = |name: &[u8]| uri::lenient_parameters(uri.as_bytes(), name).into_iter().next();
    let version = first(b"resourceVersion").unwrap_or_default();
    version.is_empty()
        || version == b"0"
        || first(b"sendInitialEvents").is_some_and(|value| value != b"false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verb: &str, name: &str, query: &str, code: u16, body: &str) -> Exposure {
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let name = if name.is_empty() { String::new() } else { format!(",\"name\":\"{name}\"") };
        let body = if body.is_empty() { String::new() } else { format!(",\"responseObject\":{body}") };
        let event = format!(
            r#"{{"kind":"Event","stage":"{stage}","requestURI":"/api/v1/namespaces/p/secrets{query}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p"{name}}},"responseStatus":{{"code":{code}}}{body}}}"#
        );
        let names = NamePatterns::new(["*registry*", "*regcred*"]).unwrap();
        Exposure::of(&mut Event::new(event.as_bytes()), &names, None)
    }

    const DOCKER: &str = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{".dockerconfigjson":"eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},"type":"kubernetes.io/dockerconfigjson"}"#;

    #[test]
    fn the_type_that_was_seen_beats_the_name() {
        let exposure = of("get", "x", "", 200, DOCKER);
        assert_eq!((exposure.kind, exposure.secrets), (ExposureKind::Payload, vec!["p/x".to_owned()]));
        assert!(exposure.logins.hosts.contains("ghcr.io") && exposure.logins.usernames.contains("bot"));
        let tls = DOCKER.replace("dockerconfigjson\"}", "tls\"}").replace("\"x\"", "\"registry-tls\"");
        assert_eq!(of("get", "registry-tls", "", 200, &tls).kind, ExposureKind::None);
        assert_eq!(of("get", "registry-tls", "", 200, "").kind, ExposureKind::Presumed);
    }

    #[test]
    fn lists_name_what_they_hand_over() {
        let item = DOCKER.replace("\"kind\":\"Secret\",", "");
        let list = format!(
            r#"{{"kind":"SecretList","items":[{item},{{"metadata":{{"name":"o"}},"data":{{"a":""}},"type":"Opaque"}}]}}"#
        );
        let exposure = of("list", "", "", 200, &list);
        assert_eq!(
            (exposure.kind, exposure.scope, exposure.count),
            (ExposureKind::Payload, ReadScope::Namespace, 1)
        );
        assert_eq!(of("list", "", "", 200, "").kind, ExposureKind::Presumed);
        assert_eq!(of("list", "", "?fieldSelector=type%3DOpaque", 200, "").kind, ExposureKind::None);
        assert_eq!(
            of("list", "", "?fieldSelector=type%3Dkubernetes.io%2Fdockercfg", 200, "").kind,
            ExposureKind::Presumed
        );
        assert_eq!(of("watch", "", "?watch=1", 200, "").kind, ExposureKind::Presumed);
        assert_eq!(of("list", "", "", 403, r#"{"kind":"Status"}"#).kind, ExposureKind::Denied);
        assert_eq!(of("get", "registry", "", 404, r#"{"kind":"Status"}"#).kind, ExposureKind::None);
    }

    #[test]
    fn tables_and_metadata_carry_data_only_in_disguise() {
        let row = r#"{"cells":["x","kubernetes.io/dockerconfigjson",1,"1d"],"object":OBJECT}"#;
        let table =
            |object: &str| format!(r#"{{"kind":"Table","rows":[{}]}}"#, row.replace("OBJECT", object));
        let partial = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"x","namespace":"p"}}"#;
        assert_eq!(of("get", "x", "", 200, &table(partial)).kind, ExposureKind::Metadata);
        assert_eq!(of("get", "x", "", 200, &table("null")).kind, ExposureKind::Metadata);
        assert_eq!(of("get", "x", "", 200, &table(DOCKER)).kind, ExposureKind::Payload);
        let applied = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"regcred","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\".dockerconfigjson\":\"e30=\"}}"}}}"#;
        assert_eq!(of("get", "regcred", "", 200, applied).kind, ExposureKind::Payload);
    }

    #[test]
    fn requests_that_read_without_being_called_so() {
        let list = format!(r#"{{"kind":"SecretList","items":[{DOCKER}]}}"#);
        assert_eq!(of("patch", "x", "", 200, DOCKER).kind, ExposureKind::Payload);
        assert_eq!(of("deletecollection", "", "", 200, &list).kind, ExposureKind::Payload);
        assert_eq!(of("deletecollection", "", "", 200, "").kind, ExposureKind::Presumed);
        assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).kind, ExposureKind::None);
        assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).secrets, ["p/regcred"]);
        // The client knows what it sends; which credential it is is said all the same.
        let created = of("create", "x", "", 201, DOCKER);
        assert_eq!((created.kind, created.evidence), (ExposureKind::None, Some(Evidence::Type)));
        assert_eq!(of("patch", "x", "", 403, "").kind, ExposureKind::Denied);
    }

    #[test]
    fn a_line_that_is_cut_may_have_held_more() {
        let whole = format!(
            r#"{{"stage":"ResponseComplete","verb":"list","objectRef":{{"resource":"secrets","namespace":"p"}},"responseStatus":{{"code":200}},"responseObject":{{"kind":"SecretList","items":[{{"metadata":{{"name":"o"}},"type":"Opaque"}},{DOCKER}]}}}}"#
        );
        let names = NamePatterns::default();
        let of = |text: &str| Exposure::of(&mut Event::new(text.as_bytes()), &names, None);
        assert_eq!(of(&whole).secrets, ["p/x"]);
        // Before the credential, within its data, and behind its data, where its type would stand.
        for end in ["\"type\":\"Opaque\"}", "eyJhdXRocyI6", "\"data\":"] {
            let end = whole.find(end).unwrap() + end.len();
            assert_eq!(of(&whole[..end]).kind, ExposureKind::Presumed, "{}", &whole[..end]);
        }
        let end = whole.rfind(",\"type\"").unwrap();
        assert_eq!(of(&format!("{}}}", &whole[..end])).kind, ExposureKind::Payload);
    }

    #[test]
    fn what_is_known_is_named() {
        let names = NamePatterns::new(["*regcred*"]).unwrap();
        let mut cluster_state = ClusterState::default();
        let secret = |name: &str, kind: &str| {
            DOCKER
                .replace("\"x\"", &format!("\"{name}\""))
                .replace("dockerconfigjson\"}", &format!("{kind}\"}}"))
        };
        let mut of = |verb: &str, reference: &str, uri: &str, body: &str| {
            let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            let event = format!(
                r#"{{"stage":"{stage}","requestURI":"{uri}","verb":"{verb}","objectRef":{{"resource":"secrets"{reference}}},"responseStatus":{{"code":200}}{body}}}"#
            );
            Exposure::of(&mut Event::new(event.as_bytes()), &names, Some(&mut cluster_state))
        };
        let p = r#","namespace":"p""#;
        let named = |name: &str| format!(r#","namespace":"p","name":"{name}""#);
        for (name, kind) in [("a", "dockercfg"), ("regcred-tls", "tls"), ("opaque", "Opaque")] {
            of("get", &named(name), "/", &format!(",\"responseObject\":{}", secret(name, kind)));
        }
        assert_eq!(of("list", p, "/", "").secrets, ["p/a"]);
        assert_eq!(of("list", p, "/?fieldSelector=type%3DOpaque", "").kind, ExposureKind::None);
        assert_eq!(of("list", "", "/?fieldSelector=metadata.namespace%3Dp", "").secrets, ["p/a"]);
        assert_eq!(of("list", r#","name":"a""#, "/?fieldSelector=metadata.name%3Da", "").secrets, ["p/a"]);
        assert_eq!(of("list", r#","name":"regcred""#, "/", "").secrets, ["*/regcred"]);
        assert_eq!(of("get", &named("regcred-tls"), "/", "").kind, ExposureKind::None);
        assert_eq!(of("get", &named("a"), "/", "").evidence, Some(Evidence::Type));
        assert_eq!(of("watch", p, "/?watch=1&resourceVersion=0", "").secrets, ["p/a"]);
        let later = of("watch", p, "/?watch=1&resourceVersion=9", "");
        assert_eq!((later.kind, later.count), (ExposureKind::Presumed, 0));
        assert_eq!(of("watch", p, "/?watch=1&resourceVersion=9&sendInitialEvents=true", "").count, 1);
    }
}
