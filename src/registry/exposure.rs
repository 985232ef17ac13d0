//! What one event exposed.
//!
//! A read by name says which secret. A list or a watch has no name: what was taken stands in the response, where the
//! policy logs it, or nowhere, and then the read of the whole scope is presumed to be one of the credentials in it.

use std::sync::LazyLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::config::Logins;
use crate::audit::event::{Event, Member};
use crate::audit::json::{Raw, Type};
use crate::audit::uri;

/// The types of secrets that hold registry credentials.
const TYPES: [&[u8]; 2] = [b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"];

/// Names that registry credentials go by, where the type is not known.
const NAMES: [&str; 15] = [
    "*registry*",
    "*regcred*",
    "*docker*",
    "*pull-secret*",
    "*pullsecret*",
    "*image-pull*",
    "*imagepull*",
    "*ecr-*",
    "*gcr-*",
    "*acr-*",
    "*ghcr*",
    "*quay*",
    "*harbor*",
    "*artifactory*",
    "*jfrog*",
];

#[allow(clippy::expect_used)] // Constant patterns; a test builds them.
static NAMED_SO: LazyLock<GlobSet> = LazyLock::new(|| {
    let mut set = GlobSetBuilder::new();
    for name in NAMES {
        set.add(GlobBuilder::new(name).case_insensitive(true).build().expect("a constant pattern"));
    }
    set.build().expect("constant patterns")
});

/// So many secrets are named; all are counted.
const MOST_NAMED: usize = 1000;

/// How surely credentials were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing about registry credentials.
    #[default]
    None,
    /// The request was refused.
    Denied,
    /// Names, and perhaps types, but no content.
    Metadata,
    /// A full read was possible, and the log does not show the answer.
    Presumed,
    /// The answer carried them.
    Payload,
}

impl Kind {
    /// The word in rules and alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Denied => "denied",
            Kind::Metadata => "metadata",
            Kind::Presumed => "presumed",
            Kind::Payload => "payload",
        }
    }
}

/// How much was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// One secret.
    #[default]
    Secret,
    /// Those of a namespace.
    Namespace,
    /// Those of the cluster.
    Cluster,
}

impl Scope {
    /// The word in rules and alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Secret => "secret",
            Scope::Namespace => "namespace",
            Scope::Cluster => "cluster",
        }
    }
}

/// What an event exposed of registry credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// How surely.
    pub kind: Kind,
    /// How much was asked for.
    pub scope: Scope,
    /// Which credentials, as `namespace/name`; at most a thousand.
    pub secrets: Vec<String>,
    /// How many.
    pub count: u64,
    /// For which registries, and as whom.
    pub logins: Logins,
}

/// A text of an event as a string.
fn text(raw: Option<Raw<'_>>) -> Option<String> {
    raw.and_then(Raw::string).map(|text| String::from_utf8_lossy(&text).into_owned())
}

impl Exposure {
    /// What an event exposed. A watch is looked at when it starts; other requests when they are answered.
    pub fn of(event: &mut Event<'_>) -> Self {
        let object = event.object();
        let is_secrets =
            object.resource.is_some_and(|raw| raw.bytes() == b"\"secrets\"" || *raw.text() == *b"secrets");
        if !is_secrets || object.subresource.is_some() {
            return Exposure::default();
        }
        let (verb, stage) = (text(event.get(Member::Verb)), text(event.get(Member::Stage)));
        match (verb.as_deref(), stage.as_deref()) {
            (Some("get" | "list"), Some("ResponseComplete")) | (Some("watch"), Some("ResponseStarted")) => {}
            _ => return Exposure::default(),
        }
        let scope = match (object.name, object.namespace) {
            (Some(_), _) => Scope::Secret,
            (None, Some(_)) => Scope::Namespace,
            (None, None) => Scope::Cluster,
        };
        let mut exposure = Exposure { scope, ..Exposure::default() };
        let code = event.path(&["responseStatus", "code"]).map(Raw::bytes);
        match code.and_then(|code| code.first()) {
            Some(b'2') | None => {}
            Some(_) => {
                if matches!(code, Some(b"401" | b"403")) {
                    exposure.kind = Kind::Denied;
                }
                return exposure;
            }
        }
        let namespace = text(object.namespace).unwrap_or_default();
        match event.get(Member::ResponseObject).filter(|body| body.kind() == Type::Object) {
            Some(body) => exposure.read_answer(body, &namespace),
            None => {
                let name = text(object.name);
                let uri = text(event.get(Member::RequestUri)).unwrap_or_default();
                exposure.presume(name.as_deref(), &namespace, &uri);
            }
        }
        exposure
    }

    /// The answer is not in the log: what was asked for decides.
    fn presume(&mut self, name: Option<&str>, namespace: &str, uri: &str) {
        match name {
            Some(name) if NAMED_SO.is_match(name) => {
                self.kind = Kind::Presumed;
                self.add(namespace, name);
            }
            Some(_) => {}
            // A selector may ask for other types of secrets only.
            None if !asks_for_other_types(uri) => self.kind = Kind::Presumed,
            None => {}
        }
    }

    fn read_answer(&mut self, body: Raw<'_>, namespace: &str) {
        let kind = text(body.get("kind")).unwrap_or_default();
        match kind.as_str() {
            "Secret" | "PartialObjectMetadata" => self.read_secret(body, None, namespace),
            "SecretList" | "PartialObjectMetadataList" => {
                for item in body.get("items").into_iter().flat_map(Raw::items).map_while(Result::ok) {
                    self.read_secret(item, None, namespace);
                }
            }
            "Table" => {
                for row in body.get("rows").into_iter().flat_map(Raw::items).map_while(Result::ok) {
                    // The cells of a secret: name, type, number of keys, age.
                    let cell = |at| {
                        row.get("cells")
                            .and_then(|cells: Raw<'_>| cells.items().map_while(Result::ok).nth(at))
                    };
                    match row.get("object").filter(|object| object.kind() == Type::Object) {
                        Some(object) => self.read_secret(object, cell(1), namespace),
                        None => {
                            let is_credential = cell(1).is_some_and(is_credential_type);
                            if let (true, Some(name)) = (is_credential, text(cell(0))) {
                                self.found(Kind::Metadata, namespace, &name);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// One secret, or its metadata alone; `cell` is its type where a table says it.
    fn read_secret(&mut self, secret: Raw<'_>, cell: Option<Raw<'_>>, namespace: &str) {
        let metadata = secret.get("metadata");
        let part = |key: &str| text(metadata.and_then(|metadata| metadata.get(key)));
        let Some(name) = part("name") else { return };
        let own = part("namespace");
        let namespace = own.as_deref().unwrap_or(namespace);
        let is_credential = match secret.get("type").or(cell) {
            // A type that was seen beats a name that only sounds right.
            Some(kind) => is_credential_type(kind),
            None => NAMED_SO.is_match(&name),
        };
        if !is_credential {
            return;
        }
        let data = secret.get("data").filter(|data| data.members().next().is_some());
        if let Some(data) = data {
            self.logins.read(data);
        }
        let applied = metadata
            .and_then(|metadata| metadata.get("annotations"))
            .and_then(|annotations| annotations.get("kubectl.kubernetes.io/last-applied-configuration"));
        // `kubectl apply` leaves the whole secret in an annotation, which metadata carries along.
        let in_annotation = applied.is_some_and(|applied| {
            let text = applied.text();
            memchr::memmem::find(&text, b".dockerconfigjson")
                .or_else(|| memchr::memmem::find(&text, b".dockercfg"))
                .is_some()
        });
        let kind = if data.is_some() || in_annotation { Kind::Payload } else { Kind::Metadata };
        self.found(kind, namespace, &name);
    }

    /// The surest decides what the whole event is; credentials that it only names are not those it handed over.
    fn found(&mut self, kind: Kind, namespace: &str, name: &str) {
        if kind == Kind::Payload && self.kind != Kind::Payload {
            self.secrets.clear();
            self.count = 0;
        }
        if self.kind == Kind::Payload && kind != Kind::Payload {
            return;
        }
        self.kind = kind;
        self.add(namespace, name);
    }

    fn add(&mut self, namespace: &str, name: &str) {
        self.count += 1;
        if self.secrets.len() < MOST_NAMED {
            self.secrets.push(format!("{namespace}/{name}"));
        }
    }
}

fn is_credential_type(kind: Raw<'_>) -> bool {
    kind.string().is_some_and(|kind| TYPES.contains(&&*kind))
}

/// Whether a list asks, by its field selector, for secrets of a type that holds no registry credential.
fn asks_for_other_types(uri: &str) -> bool {
    let Some(selector) = uri::parameter(uri.as_bytes(), b"fieldSelector") else { return false };
    selector.split(|&byte| byte == b',').any(|term| {
        let Some(rest) = term.strip_prefix(b"type=") else { return false };
        let wanted = rest.strip_prefix(b"=").unwrap_or(rest);
        !TYPES.contains(&wanted)
    })
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
        Exposure::of(&mut Event::new(event.as_bytes()))
    }

    const DOCKER: &str = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{".dockerconfigjson":"eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},"type":"kubernetes.io/dockerconfigjson"}"#;

    #[test]
    fn the_type_that_was_seen_beats_the_name() {
        let exposure = of("get", "x", "", 200, DOCKER);
        assert_eq!((exposure.kind, exposure.secrets), (Kind::Payload, vec!["p/x".to_owned()]));
        assert!(exposure.logins.hosts.contains("ghcr.io") && exposure.logins.usernames.contains("bot"));
        let tls = DOCKER.replace("dockerconfigjson\"}", "tls\"}").replace("\"x\"", "\"registry-tls\"");
        assert_eq!(of("get", "registry-tls", "", 200, &tls).kind, Kind::None);
        assert_eq!(of("get", "registry-tls", "", 200, "").kind, Kind::Presumed);
    }

    #[test]
    fn lists_name_what_they_hand_over() {
        let item = DOCKER.replace("\"kind\":\"Secret\",", "");
        let list = format!(
            r#"{{"kind":"SecretList","items":[{item},{{"metadata":{{"name":"o"}},"data":{{"a":""}},"type":"Opaque"}}]}}"#
        );
        let exposure = of("list", "", "", 200, &list);
        assert_eq!((exposure.kind, exposure.scope, exposure.count), (Kind::Payload, Scope::Namespace, 1));
        assert_eq!(of("list", "", "", 200, "").kind, Kind::Presumed);
        assert_eq!(of("list", "", "?fieldSelector=type%3DOpaque", 200, "").kind, Kind::None);
        assert_eq!(
            of("list", "", "?fieldSelector=type%3Dkubernetes.io%2Fdockercfg", 200, "").kind,
            Kind::Presumed
        );
        assert_eq!(of("watch", "", "?watch=1", 200, "").kind, Kind::Presumed);
        assert_eq!(of("list", "", "", 403, r#"{"kind":"Status"}"#).kind, Kind::Denied);
        assert_eq!(of("get", "registry", "", 404, r#"{"kind":"Status"}"#).kind, Kind::None);
    }

    #[test]
    fn tables_and_metadata_carry_data_only_in_disguise() {
        let row = r#"{"cells":["x","kubernetes.io/dockerconfigjson",1,"1d"],"object":OBJECT}"#;
        let table =
            |object: &str| format!(r#"{{"kind":"Table","rows":[{}]}}"#, row.replace("OBJECT", object));
        let partial = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"x","namespace":"p"}}"#;
        assert_eq!(of("get", "x", "", 200, &table(partial)).kind, Kind::Metadata);
        assert_eq!(of("get", "x", "", 200, &table("null")).kind, Kind::Metadata);
        assert_eq!(of("get", "x", "", 200, &table(DOCKER)).kind, Kind::Payload);
        let applied = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"regcred","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\".dockerconfigjson\":\"e30=\"}}"}}}"#;
        assert_eq!(of("get", "regcred", "", 200, applied).kind, Kind::Payload);
    }
}
