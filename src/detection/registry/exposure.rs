//! What one event exposed of registry credentials.
//!
//! Takes an event and the cluster state, and returns the credentials that the response handed over. A read by name says
//! which secret; a list or a watch has no name, so that the response decides where the policy logs it, and where it does
//! not, the read is presumed to have covered every known credential in its scope. Types that the event shows are recorded in
//! the cluster state on the way. The data of a secret must never enter the result: hosts and user names alone.

use serde::{Deserialize, Serialize};

use super::cluster_state::{ClusterState, Evidence};
use super::docker_config::{DATA_KEYS, RegistryLogins, SECRET_TYPES};
use super::{RequestInfo, text};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{JsonError, Raw, Type};
use crate::detection::audit::uri;
use crate::text::name_patterns::NamePatterns;

/// The annotation in which `kubectl apply` stores the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Maximum number of secrets that an exposure names. All are counted.
const MAX_NAMED: usize = 1000;

/// How surely credentials were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExposureKind {
    /// No registry credential was involved.
    #[default]
    None,
    /// The request was denied.
    Denied,
    /// Names, and perhaps types, but no data.
    Metadata,
    /// A full read was possible, and the log does not show the response.
    Presumed,
    /// The response contained credentials.
    Payload,
}

impl ExposureKind {
    /// Returns the value of `registry.exposure`.
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

/// The range of secrets that a request covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadScope {
    #[default]
    Secret,
    Namespace,
    Cluster,
}

impl ReadScope {
    /// Returns the value of `registry.scope`.
    pub const fn name(self) -> &'static str {
        match self {
            ReadScope::Secret => "secret",
            ReadScope::Namespace => "namespace",
            ReadScope::Cluster => "cluster",
        }
    }
}

/// The registry credentials that an event is about, and what it exposed of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    pub kind: ExposureKind,
    pub scope: ReadScope,
    /// Credentials as `namespace/name`, at most [`MAX_NAMED`].
    pub secrets: Vec<String>,
    /// Number of credentials.
    pub count: u64,
    /// The strongest evidence for any of them.
    pub evidence: Option<Evidence>,
    pub logins: RegistryLogins,
}

/// What a request does to secrets, which decides what its response can expose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// The response contains what was there before, or what the client need not know.
    Read,
    /// The stream contains later changes, and, depending on the query, what is there already.
    Watch,
    /// The response contains what the client sent.
    Write,
    /// The response contains a status.
    Delete,
}

impl Access {
    fn of(verb: &str) -> Option<Self> {
        match verb {
            // A patch is answered with the whole secret, and deletecollection with all of them.
            "get" | "list" | "patch" | "deletecollection" => Some(Access::Read),
            "watch" => Some(Access::Watch),
            "create" | "update" => Some(Access::Write),
            "delete" => Some(Access::Delete),
            _ => None,
        }
    }
}

impl Exposure {
    /// Returns what an event is about and what it exposed. A watch counts once: when it starts, or, where the policy omits
    /// the start, when it ends. Without cluster state only the event itself counts.
    pub(crate) fn of(
        event: &mut Event<'_>,
        request: &RequestInfo,
        names: &NamePatterns,
        state: Option<&mut ClusterState>,
    ) -> Self {
        if !request.is_about_secrets() {
            return Exposure::default();
        }
        let Some(access) = Access::of(&request.verb) else { return Exposure::default() };
        let code = event.path(&["responseStatus", "code"]).map(Raw::bytes);
        let mut reader = ExposureReader { names, state, exposure: Exposure::default() };
        let counts = match (text(event.get(Member::Stage)).as_deref(), &mut reader.state) {
            (Some("ResponseStarted" | "ResponseComplete" | "Panic"), Some(state))
                if access == Access::Watch =>
            {
                state.is_first_of_request(event)
            }
            (Some("ResponseStarted"), None) if access == Access::Watch => true,
            // A request that failed authentication has no other stage.
            (Some("ResponseStarted"), _) => code == Some(b"401"),
            (Some("ResponseComplete" | "Panic"), _) => access != Access::Watch,
            _ => false,
        };
        if !counts {
            return Exposure::default();
        }
        reader.exposure.scope = match (request.has_name, request.has_namespace) {
            (true, _) => ReadScope::Secret,
            (false, _) if matches!(access, Access::Write | Access::Delete) => ReadScope::Secret,
            (false, true) => ReadScope::Namespace,
            (false, false) => ReadScope::Cluster,
        };
        let target = Target::of(event, request);
        match code.and_then(|code| code.first()) {
            Some(b'2') | None => {
                reader.read_success(event, access, &target);
                reader.record_write(event, request, &target);
            }
            Some(_) => {
                if matches!(code, Some(b"401" | b"403")) {
                    reader.exposure.kind = ExposureKind::Denied;
                }
                reader.add_target(&target);
            }
        }
        reader.exposure
    }

    fn add(&mut self, namespace: &str, name: &str, evidence: Evidence) {
        self.count += 1;
        self.evidence = self.evidence.max(Some(evidence));
        if self.secrets.len() < MAX_NAMED {
            self.secrets.push(format!("{namespace}/{name}"));
        }
    }

    /// Adds a credential that was exposed. The surest kind is that of the whole event, so that credentials which the event
    /// only names are not among those that it handed over.
    fn add_exposed(&mut self, kind: ExposureKind, namespace: &str, name: &str, evidence: Evidence) {
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

/// The secrets that a request selects.
struct Target<'r> {
    /// Empty if the request selects many.
    name: &'r str,
    /// Empty for the whole cluster.
    namespace: String,
    uri: String,
}

impl<'r> Target<'r> {
    fn of(event: &mut Event<'_>, request: &'r RequestInfo) -> Self {
        let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
        let mut namespace = request.namespace.clone();
        // A request across all namespaces can select one with a field selector.
        if namespace.is_empty() {
            namespace = selector_terms(&uri)
                .into_iter()
                .find_map(|(field, equals, value)| (equals && field == "metadata.namespace").then_some(value))
                .unwrap_or_default();
        }
        Target { name: &request.name, namespace, uri }
    }
}

/// Reads one event.
struct ExposureReader<'n, 's> {
    names: &'n NamePatterns,
    state: Option<&'s mut ClusterState>,
    exposure: Exposure,
}

impl ExposureReader<'_, '_> {
    fn evidence(&mut self, namespace: &str, name: &str) -> Option<Evidence> {
        match &mut self.state {
            Some(state) => state.evidence(namespace, name, self.names),
            None => self.names.matches(name).then_some(Evidence::Name),
        }
    }

    fn read_success(&mut self, event: &mut Event<'_>, access: Access, target: &Target<'_>) {
        let response = event.get(Member::ResponseObject).filter(|body| body.kind() == Type::Object);
        match access {
            Access::Read | Access::Delete => {
                if let Some(response) = response {
                    self.read_response(response, target);
                }
                // A truncated line may have ended before the credentials.
                let is_cut = event.finish() == Err(JsonError::Truncated);
                let is_shown = response.is_some() && !(is_cut && self.exposure.kind == ExposureKind::None);
                if access == Access::Read && !is_shown {
                    self.presume(target, true);
                } else if self.exposure.count == 0 {
                    self.add_target(target);
                }
            }
            Access::Watch => self.presume(target, sends_initial_events(&target.uri)),
            Access::Write => {
                // Two views of the same secret: the request may have no name, the response no type.
                for body in super::bodies(event) {
                    self.read_written(body, target);
                }
                self.add_target(target);
            }
        }
    }

    /// Adds the secret that a request named although it exposed nothing.
    fn add_target(&mut self, target: &Target<'_>) {
        if !target.name.is_empty()
            && let Some(evidence) = self.evidence(&target.namespace, target.name)
        {
            self.exposure.add(&target.namespace, target.name, evidence);
        }
    }

    /// Derives the exposure from the request, where the response is not in the log. Without `includes_existing` only
    /// later changes were sent.
    fn presume(&mut self, target: &Target<'_>, includes_existing: bool) {
        let Target { name, namespace, uri } = target;
        if !name.is_empty() {
            if namespace.is_empty() {
                self.presume_name_in_all_namespaces(name);
            } else if let Some(evidence) = self.evidence(namespace, name) {
                self.exposure.add_exposed(ExposureKind::Presumed, namespace, name, evidence);
            }
            return;
        }
        // A field selector may exclude the types of registry credentials.
        if selects_other_types(uri) {
            return;
        }
        self.exposure.kind = ExposureKind::Presumed;
        if includes_existing {
            let scope = (!namespace.is_empty()).then_some(&**namespace);
            for (key, evidence) in self.known(scope) {
                let (namespace, name) = key.split_once('/').unwrap_or_default();
                self.exposure.add(namespace, name, evidence);
            }
        }
    }

    /// A field selector can select one name in all namespaces.
    fn presume_name_in_all_namespaces(&mut self, name: &str) {
        let mut known = self.known(None);
        known.retain(|(key, _)| key.split_once('/').is_some_and(|(_, own)| own == name));
        for (key, evidence) in &known {
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            self.exposure.add_exposed(ExposureKind::Presumed, namespace, name, *evidence);
        }
        if known.is_empty() && self.names.matches(name) {
            self.exposure.add_exposed(ExposureKind::Presumed, "*", name, Evidence::Name);
        }
    }

    fn known(&self, namespace: Option<&str>) -> Vec<(String, Evidence)> {
        let credentials = self.state.as_deref().into_iter().flat_map(|state| state.credentials(namespace));
        credentials.map(|(key, evidence)| (key.to_owned(), evidence)).collect()
    }

    fn read_response(&mut self, body: Raw<'_>, target: &Target<'_>) {
        let kind = text(body.get("kind")).unwrap_or_default();
        match kind.as_str() {
            "Secret" | "PartialObjectMetadata" => self.read_secret(body, None, target),
            "SecretList" | "PartialObjectMetadataList" => {
                for item in body.items_of("items") {
                    self.read_secret(item, None, target);
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
                        Some(object) => self.read_secret(object, cell(1), target),
                        None => {
                            if let Some(name) = text(cell(0)) {
                                let kind = ExposureKind::Metadata;
                                self.classify(kind, &target.namespace, &name, cell(1), false);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Reads a secret or its metadata alone. `type_cell` is its type where a table shows it.
    fn read_secret(&mut self, secret: Raw<'_>, type_cell: Option<Raw<'_>>, target: &Target<'_>) {
        let [metadata, data, secret_type] = secret.get_all(["metadata", "data", "type"]);
        let [name, own_namespace, annotations] = metadata
            .map(|metadata| metadata.get_all(["name", "namespace", "annotations"]))
            .unwrap_or_default();
        let Some(name) = text(name).or_else(|| (!target.name.is_empty()).then(|| target.name.to_owned()))
        else {
            return;
        };
        let own_namespace = text(own_namespace);
        let namespace = own_namespace.as_deref().unwrap_or(&target.namespace);
        let data = data.filter(|data| data.members().next().is_some());
        // The annotation holds the whole secret, and is part of the metadata.
        let applied =
            annotations.and_then(|annotations| annotations.get(LAST_APPLIED)).map(Raw::text).filter(
                |applied| DATA_KEYS.iter().any(|key| memchr::memmem::find(applied, key.as_bytes()).is_some()),
            );
        let exposed =
            if data.is_some() || applied.is_some() { ExposureKind::Payload } else { ExposureKind::Metadata };
        // The type comes last and may be missing from a truncated line.
        let has_key = data.is_some_and(|data| DATA_KEYS.iter().any(|key| data.get(key).is_some()));
        if self.classify(exposed, namespace, &name, secret_type.or(type_cell), has_key) {
            self.exposure.logins.add_secret(secret);
            if let Some(applied) = applied {
                self.exposure.logins.add_secret(Raw::assume(&applied));
            }
        }
    }

    /// Adds a secret of the response if it is a credential, and returns whether it is. Records its type.
    fn classify(
        &mut self,
        kind: ExposureKind,
        namespace: &str,
        name: &str,
        secret_type: Option<Raw<'_>>,
        has_key: bool,
    ) -> bool {
        let evidence = match (secret_type.and_then(Raw::string), has_key) {
            (Some(secret_type), _) => {
                let is_credential = SECRET_TYPES.contains(&&*secret_type);
                if let Some(state) = &mut self.state {
                    state.record_type(namespace, name, is_credential, self.names);
                }
                is_credential.then_some(Evidence::Type)
            }
            (None, true) => Some(Evidence::Type),
            (None, false) => self.evidence(namespace, name),
        };
        if let Some(evidence) = evidence {
            self.exposure.add_exposed(kind, namespace, name, evidence);
        }
        evidence.is_some()
    }

    /// Reads a secret that is created or updated.
    fn read_written(&mut self, body: Raw<'_>, target: &Target<'_>) {
        let name = text(body.path(&["metadata", "name"])).unwrap_or_else(|| target.name.to_owned());
        let Some(secret_type) = body.get("type").and_then(Raw::string) else { return };
        if name.is_empty() {
            return;
        }
        let is_credential = SECRET_TYPES.contains(&&*secret_type);
        if let Some(state) = &mut self.state {
            state.record_type(&target.namespace, &name, is_credential, self.names);
        }
        if is_credential {
            self.exposure.logins.add_secret(body);
            if self.exposure.count == 0 {
                self.exposure.add(&target.namespace, &name, Evidence::Type);
            }
        }
    }

    /// Records when a credential was created or changed. A dry run changes nothing.
    fn record_write(&mut self, event: &mut Event<'_>, request: &RequestInfo, target: &Target<'_>) {
        let Some(state) = &mut self.state else { return };
        if matches!(&*request.verb, "create" | "update" | "patch")
            && !target.name.is_empty()
            && let Some(time) = event.time()
            && uri::lenient_parameters(target.uri.as_bytes(), b"dryRun").is_empty()
        {
            state.record_write(&target.namespace, target.name, time, self.names);
        }
    }
}

/// Removes deleted secrets from the cluster state: later ones of the same name may be something else.
pub(super) fn remove_deleted(event: &mut Event<'_>, request: &RequestInfo, state: &mut ClusterState) {
    if !request.is_about_secrets() || !request.has_succeeded || !request.has_namespace {
        return;
    }
    match &*request.verb {
        "delete" if request.has_name => state.remove_secret(&request.namespace, &request.name),
        "deletecollection" => {
            // With a selector some secrets remain.
            let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
            if !uri.contains("elector") {
                state.remove_secrets_of(&request.namespace);
            }
        }
        _ => {}
    }
}

/// Returns the terms of a request's field selectors as field, whether it has to be equal, and value.
fn selector_terms(uri: &str) -> Vec<(String, bool, String)> {
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
    terms
}

/// Returns whether a field selector restricts a list to types of secrets that hold no registry credential.
fn selects_other_types(uri: &str) -> bool {
    selector_terms(uri)
        .iter()
        .any(|(field, equals, value)| *equals && field == "type" && !SECRET_TYPES.contains(&value.as_bytes()))
}

/// Returns whether a field selector restricts a request to the types of registry credentials.
///
/// The URI decides, since a request that failed early has no `objectRef`.
pub(crate) fn selects_credential_types(event: &mut Event<'_>) -> bool {
    let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
    selector_terms(&uri)
        .iter()
        .any(|(field, equals, value)| *equals && field == "type" && SECRET_TYPES.contains(&value.as_bytes()))
}

/// Returns whether a watch sends existing objects before changes: it does unless it continues from a resource version.
fn sends_initial_events(uri: &str) -> bool {
    let first = |name: &[u8]| uri::lenient_parameters(uri.as_bytes(), name).into_iter().next();
    let version = first(b"resourceVersion").unwrap_or_default();
    version.is_empty()
        || version == b"0"
        || first(b"sendInitialEvents").is_some_and(|value| value != b"false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(event: &str, names: &NamePatterns, state: Option<&mut ClusterState>) -> Exposure {
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        Exposure::of(&mut event, &request, names, state)
    }

    fn of(verb: &str, name: &str, query: &str, code: u16, body: &str) -> Exposure {
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let name = if name.is_empty() { String::new() } else { format!(",\"name\":\"{name}\"") };
        let body = if body.is_empty() { String::new() } else { format!(",\"responseObject\":{body}") };
        let event = format!(
            r#"{{"kind":"Event","stage":"{stage}","requestURI":"/api/v1/namespaces/p/secrets{query}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p"{name}}},"responseStatus":{{"code":{code}}}{body}}}"#
        );
        let names = NamePatterns::new(["*registry*", "*regcred*"]).unwrap();
        read(&event, &names, None)
    }

    const DOCKER: &str = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{".dockerconfigjson":"eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},"type":"kubernetes.io/dockerconfigjson"}"#;

    #[test]
    fn type_overrides_name() {
        let exposure = of("get", "x", "", 200, DOCKER);
        assert_eq!((exposure.kind, exposure.secrets), (ExposureKind::Payload, vec!["p/x".to_owned()]));
        assert!(exposure.logins.hosts.contains("ghcr.io") && exposure.logins.usernames.contains("bot"));
        let tls = DOCKER.replace("dockerconfigjson\"}", "tls\"}").replace("\"x\"", "\"registry-tls\"");
        assert_eq!(of("get", "registry-tls", "", 200, &tls).kind, ExposureKind::None);
        assert_eq!(of("get", "registry-tls", "", 200, "").kind, ExposureKind::Presumed);
    }

    #[test]
    fn lists_name_the_credentials_in_the_response() {
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
    fn tables_and_metadata_expose_data_only_in_objects_and_annotations() {
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
    fn patch_and_deletecollection_are_reads() {
        let list = format!(r#"{{"kind":"SecretList","items":[{DOCKER}]}}"#);
        assert_eq!(of("patch", "x", "", 200, DOCKER).kind, ExposureKind::Payload);
        assert_eq!(of("deletecollection", "", "", 200, &list).kind, ExposureKind::Payload);
        assert_eq!(of("deletecollection", "", "", 200, "").kind, ExposureKind::Presumed);
        assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).kind, ExposureKind::None);
        assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).secrets, ["p/regcred"]);
        // A created secret is not exposed, but named.
        let created = of("create", "x", "", 201, DOCKER);
        assert_eq!((created.kind, created.evidence), (ExposureKind::None, Some(Evidence::Type)));
        assert_eq!(of("patch", "x", "", 403, "").kind, ExposureKind::Denied);
    }

    #[test]
    fn presumes_credentials_behind_the_end_of_a_truncated_line() {
        let whole = format!(
            r#"{{"stage":"ResponseComplete","verb":"list","objectRef":{{"resource":"secrets","namespace":"p"}},"responseStatus":{{"code":200}},"responseObject":{{"kind":"SecretList","items":[{{"metadata":{{"name":"o"}},"type":"Opaque"}},{DOCKER}]}}}}"#
        );
        let names = NamePatterns::default();
        let of = |text: &str| read(text, &names, None);
        assert_eq!(of(&whole).secrets, ["p/x"]);
        // Before the credential, within its data, and after its data, before its type.
        for end in ["\"type\":\"Opaque\"}", "eyJhdXRocyI6", "\"data\":"] {
            let end = whole.find(end).unwrap() + end.len();
            assert_eq!(of(&whole[..end]).kind, ExposureKind::Presumed, "{}", &whole[..end]);
        }
        let end = whole.rfind(",\"type\"").unwrap();
        assert_eq!(of(&format!("{}}}", &whole[..end])).kind, ExposureKind::Payload);
    }

    #[test]
    fn presumed_reads_name_known_credentials() {
        let names = NamePatterns::new(["*regcred*"]).unwrap();
        let mut state = ClusterState::default();
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
            read(&event, &names, Some(&mut state))
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
