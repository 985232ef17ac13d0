//! Secrets and config maps that hold registry credentials although their type does not say so.
//!
//! Takes an object and returns whether its data is a registry credential, under which keys, and for which registries and user names. It
//! recognizes docker configurations under any key (`config.json` of kaniko, BuildKit, Podman and Helm, `DOCKER_AUTH_CONFIG` …), in any
//! encoding and inside other texts (`encodings`, `embedded_config`), registry configurations of containerd and K3s, repository credentials
//! of Argo CD and Flux, logins of Tekton, service account keys of Google that are named for a registry, and passwords next to the address
//! of a registry or a user name that is specific to registries. Only hosts and user names leave this file.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use base64::Engine as _;

use super::docker_config::{DATA_KEYS, checked_username, host_of};
use super::embedded_config::{add_logins, has_login};
use super::encodings::{could_be_text, decode, decode_head, is_nested_too_deep, is_opaque, plain};
use super::login::{BASE64, Login, MAX_VALUE_LEN};
use super::patch::{Written, last, last_of_each, writes};
use super::{RequestInfo, is, login_commands, named_passwords};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;

/// Maximum length of a password.
const MAX_PLAIN_LEN: usize = 4096;

/// Maximum length of an address or name, in bytes.
const MAX_HINT_LEN: usize = 512;

/// Maximum number of keys named as copies.
const MAX_KEYS: usize = 64;

/// The resource whose objects are read key by key, like secrets.
pub(super) const CONFIG_MAPS: &str = "configmaps";

/// The members of a secret or config map that contain values: base64 in secrets, never encoded, always encoded.
const MAPS: [&str; 3] = ["data", "stringData", "binaryData"];

/// The annotation in which `kubectl apply` stores the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Returns the object that `kubectl apply` stored in an annotation.
pub(super) fn last_applied(annotations: Raw<'_>) -> Option<Cow<'_, [u8]>> {
    annotations.get(LAST_APPLIED)?.string().filter(|text| text.len() <= MAX_VALUE_LEN)
}

/// The members of a secret or config map that are relevant here, found in one pass over the object.
#[derive(Debug)]
pub(super) struct ObjectParts<'e> {
    pub(super) metadata: Option<Raw<'e>>,
    pub(super) data: Option<Raw<'e>>,
    pub(super) string_data: Option<Raw<'e>>,
    pub(super) binary_data: Option<Raw<'e>>,
}

impl<'e> ObjectParts<'e> {
    pub(super) fn of(object: Raw<'e>) -> Self {
        let [metadata, data, string_data, binary_data] =
            object.get_all(["metadata", "data", "stringData", "binaryData"]);
        ObjectParts { metadata, data, string_data, binary_data }
    }

    /// Whether the data has a key.
    fn has_key(&self, key: &str) -> bool {
        [self.data, self.string_data].into_iter().flatten().any(|data| data.get(key).is_some())
    }
}

/// Calls a function with each key of an object's data, and with its value if that can be relevant, until the function returns false.
fn for_each_value(
    parts: &ObjectParts<'_>,
    is_encoded: bool,
    mut each: impl FnMut(&str, Option<&[u8]>) -> bool,
) {
    for (data, is_encoded) in
        [(parts.data, is_encoded), (parts.string_data, false), (parts.binary_data, true)]
    {
        let Some(data) = data else { continue };
        for (key, value) in data.members().map_while(Result::ok) {
            let key = key.text();
            let key = String::from_utf8_lossy(&key);
            if !with_text(&key, value, is_encoded, |text| each(&key, text)) {
                return;
            }
        }
    }
}

/// Calls a function with the text of a value if that can be relevant, otherwise with none. Returns the function's result; true without a
/// call for a value that is not a string, or too large.
fn with_text(
    key: &str,
    value: Raw<'_>,
    is_encoded: bool,
    mut each: impl FnMut(Option<&[u8]>) -> bool,
) -> bool {
    let raw = value.string().filter(|value| !value.is_empty() && value.len() <= MAX_VALUE_LEN);
    let Some(raw) = raw else { return true };
    if !is_encoded {
        return each(Some(&plain(&raw)));
    }
    if !is_worth_decoding(key, &raw) {
        return each(None);
    }
    // Go's decoder ignores line breaks.
    each(Some(&plain(&decode(&raw).unwrap_or_default())))
}

/// Returns whether decoded base64 can be a credential, a name or an address. Decoding takes most of the time needed for a secret, and most
/// values are certificates and keys, which are none of these.
fn is_worth_decoding(key: &str, raw: &[u8]) -> bool {
    let raw = raw.trim_ascii();
    // Trailing whitespace is not counted in the length of a hint.
    let ends_in_white_space = || {
        let last = raw.len().is_multiple_of(4).then(|| BASE64.decode(&raw[raw.len() - 4..]).ok()).flatten();
        last.is_none_or(|last| last.last().is_none_or(u8::is_ascii_whitespace))
    };
    raw.len() / 4 * 3 <= MAX_HINT_LEN + 3
        || is_registry_file(key)
        || names_registry(key)
        || decode_head(raw).is_none_or(|head| could_be_text(&head))
        || ends_in_white_space()
}

/// Returns whether the data of a secret is a registry credential.
pub(super) fn has_registry_credential(parts: &ObjectParts<'_>) -> bool {
    let mut found = is_repository(parts);
    let mut keys = KeyHints::default();
    let name = parts.metadata.and_then(|metadata| metadata.get("name")).map(Raw::text).unwrap_or_default();
    let has_telling_name = std::str::from_utf8(&name).is_ok_and(names_configuration);
    for_each_value(parts, true, |key, value| {
        found |= value.is_some_and(|value| is_credential(key, value) || has_telling_name && is_opaque(value));
        keys.add(key, value);
        !found
    });
    found || keys.has_password && (keys.is_for_registry() || tekton_registry(parts).is_some())
}

/// Returns the logins of a secret, up to a total of `limit`. Includes those of a secret that only appears in the annotation of `kubectl
/// apply`.
pub(super) fn logins_of(secret: Raw<'_>, limit: usize) -> Vec<Login> {
    let mut logins = Vec::new();
    add_logins_of(secret, limit, &mut logins);
    let annotations = secret.get("metadata").and_then(|metadata| metadata.get("annotations"));
    if let Some(applied) = annotations.and_then(last_applied)
        && let Ok(applied) = Raw::first(&applied)
    {
        add_logins_of(applied, limit, &mut logins);
    }
    logins
}

fn add_logins_of(secret: Raw<'_>, limit: usize, logins: &mut Vec<Login>) {
    let mut keys = KeyHints::default();
    let parts = ObjectParts::of(secret);
    for_each_value(&parts, true, |key, value| {
        if let Some(value) = value {
            add_logins(value, DATA_KEYS.contains(&key), limit, logins);
        }
        keys.add(key, value);
        logins.len() < limit
    });
    let tekton = tekton_registry(&parts);
    if logins.is_empty() && (keys.is_for_registry() || tekton.is_some() || is_repository(&parts)) {
        let host = keys.registry.or(tekton).or(keys.url);
        if host.is_some() || keys.has_registry_username {
            logins.push(Login::new(host, keys.username));
        }
    }
}

/// Returns the keys of a written object's data that hold a registry credential although the object's type does not say so:
/// a copy of a credential.
pub(crate) fn copied_configuration_keys(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Vec<String> {
    let mut keys = BTreeSet::new();
    let Some(body) = event.get(Member::RequestObject) else { return Vec::new() };
    let is_of_credential_type = |object: Raw<'_>| is_credential_type(object.get("type")) == Some(true);
    // A patch omits the type, which cannot change.
    if is_of_credential_type(body) || event.get(Member::ResponseObject).is_some_and(is_of_credential_type) {
        return Vec::new();
    }
    if !matches!(&*request.resource, "secrets" | CONFIG_MAPS) {
        return keys_of_custom_resource(body);
    }
    let is_encoded = request.resource == "secrets";
    let mut add = |key: &str, value: Option<&[u8]>| {
        if keys.len() < MAX_KEYS && value.is_some_and(|value| is_credential(key, value)) {
            keys.insert(key.to_owned());
        }
        true
    };
    for write in writes(body) {
        let Written::Value(value) = write.value else { continue };
        match write.path.split_first().map(|(map, rest)| (&**map, rest)) {
            None => {
                let annotations =
                    last_of_each(value, ["metadata"])[0].and_then(|metadata| last(metadata, "annotations"));
                for (key, value) in annotations.into_iter().flat_map(Raw::members).map_while(Result::ok) {
                    let key = String::from_utf8_lossy(&key.text()).into_owned();
                    with_text(&key, value, false, |text| add(&key, text));
                }
                let [data, string_data, binary_data] = last_of_each(value, MAPS);
                let parts = ObjectParts { metadata: None, data, string_data, binary_data };
                for_each_value(&parts, is_encoded, &mut add);
            }
            Some((b"metadata", [map, key])) if **map == *b"annotations" => {
                let key = String::from_utf8_lossy(key);
                with_text(&key, value, false, |text| add(&key, text));
            }
            Some((map, rest)) => {
                let Some(at) = MAPS.iter().position(|name| name.as_bytes() == map) else { continue };
                match rest {
                    [] => {
                        let map = |own: usize| (own == at).then_some(value);
                        let parts = ObjectParts {
                            metadata: None,
                            data: map(0),
                            string_data: map(1),
                            binary_data: map(2),
                        };
                        for_each_value(&parts, is_encoded, &mut add);
                    }
                    [key] => {
                        let key = String::from_utf8_lossy(key);
                        let is_encoded = at == 0 && is_encoded || at == 2;
                        with_text(&key, value, is_encoded, |text| add(&key, text));
                    }
                    _ => {}
                }
            }
        }
    }
    keys.into_iter().collect()
}

/// Like the above for a custom resource: returns the members below which a request writes a credential.
fn keys_of_custom_resource(body: Raw<'_>) -> Vec<String> {
    let mut keys = BTreeSet::new();
    let mut add = |key: &[u8]| {
        if keys.len() < MAX_KEYS {
            keys.insert(String::from_utf8_lossy(key).into_owned());
        }
    };
    for write in writes(body) {
        let Written::Value(value) = write.value else { continue };
        match write.path.first() {
            Some(first) => {
                // For a string that replaces another one, the key is in the path.
                let key = write.path.last().map_or(&first[..], |last| &last[..]);
                let setting = || {
                    let value = value.string().unwrap_or_default();
                    named_passwords::has_password(&[key, b"=", &*value].concat(), names_registry)
                };
                if is_copy(value, false) || setting() {
                    add(first);
                }
            }
            None => {
                for (key, member) in value.members().map_while(Result::ok) {
                    if is_copy(member, false) {
                        add(&key.text());
                    }
                }
            }
        }
    }
    keys.into_iter().collect()
}

/// Returns whether an object other than a secret holds a registry credential: a config map in its data or in an annotation, another object
/// anywhere in it.
pub(super) fn is_copy(object: Raw<'_>, is_config_map: bool) -> bool {
    if !is_config_map {
        return is_credential_text(object.bytes()) || named_passwords::is_in_settings(object, names_registry);
    }
    let parts = ObjectParts::of(object);
    if has_copy(&parts) {
        return true;
    }
    let annotations = parts.metadata.and_then(|metadata| metadata.get("annotations"));
    let applied = annotations.and_then(last_applied);
    applied
        .as_ref()
        .is_some_and(|applied| Raw::first(applied).is_ok_and(|applied| has_copy(&ObjectParts::of(applied))))
        || annotations.into_iter().flat_map(Raw::members).map_while(Result::ok).any(|(key, value)| {
            let key = key.text();
            let mut found = false;
            with_text(&String::from_utf8_lossy(&key), value, false, |text| {
                found = text.is_some_and(is_credential_text);
                true
            });
            found
        })
}

/// Returns whether the data of a config map is a registry credential. Its keys are more often names of settings than of passwords, so a key
/// only counts if it ends like a password key.
fn has_copy(parts: &ObjectParts<'_>) -> bool {
    let mut found = false;
    for_each_value(parts, false, |key, value| {
        found = value.is_some_and(|value| {
            let value = value.trim_ascii();
            let is_password = || {
                names_registry(key)
                    && value.len() <= MAX_PLAIN_LEN
                    && named_passwords::has_password(&[key.as_bytes(), b"=", value].concat(), |_| true)
            };
            is_credential_text(value)
                || is_registry_file(key) && is_registry_configuration(key, value)
                || is_google_key(value) && names_registry(key)
                || is_opaque(value) && names_configuration(key)
                || is_password()
        });
        !found
    });
    found
}

/// Returns whether a text is or contains a registry credential, regardless of its name.
fn is_credential_text(text: &[u8]) -> bool {
    has_login(text)
        || is_runtime_configuration(text)
        || named_passwords::has_password(text, names_registry)
        || login_commands::has_login(text, is_registry_host)
        || is_nested_too_deep(text)
}

/// Returns whether a host is a registry, judging by its name alone.
fn is_registry_host(host: &str) -> bool {
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    is_known_registry(host) || names_registry(host)
}

/// Returns whether a secret's type is that of registry credentials; none if the type is not shown.
pub(super) fn is_credential_type(secret_type: Option<Raw<'_>>) -> Option<bool> {
    let secret_type = secret_type.and_then(Raw::string)?;
    Some(super::docker_config::SECRET_TYPES.contains(&&*secret_type))
}

/// Returns whether one value is a registry credential by itself.
fn is_credential(key: &str, value: &[u8]) -> bool {
    let value = value.trim_ascii();
    if value.is_empty() {
        return false;
    }
    is_credential_text(value)
        || is_registry_file(key) && is_registry_configuration(key, value)
        || is_google_key(value) && names_registry(key)
        || names_registry(key) && names_password(key) && value.len() <= MAX_PLAIN_LEN
        || is_opaque(value) && names_configuration(key)
}

/// Returns whether a key indicates that its value is a docker configuration, even if the value is compressed or encrypted.
fn names_configuration(key: &str) -> bool {
    const FILES: [&str; 4] = ["config.json", "auth.json", "dockercfg", "regcred"];
    names_registry(key) || FILES.iter().any(|file| key.contains(file))
}

/// Files in which containerd, CRI-O and K3s keep the credentials of registries.
fn is_registry_file(key: &str) -> bool {
    ["registries.yaml", "registries.yml", "registries.conf", "hosts.toml", "config.toml", "buildkitd.toml"]
        .iter()
        .any(|file| key.ends_with(file))
}

fn is_registry_configuration(key: &str, value: &[u8]) -> bool {
    let contains = |text: &str| memchr::memmem::find(value, text.as_bytes()).is_some();
    let is_only_for_registries = key.contains("registries") || key.ends_with("hosts.toml");
    (is_only_for_registries || contains("registr"))
        && ["password", "auth", "identitytoken", "token"].into_iter().any(contains)
}

/// Returns whether a value is a file of K3s, containerd or its hosts with a login, regardless of its name.
fn is_runtime_configuration(value: &[u8]) -> bool {
    let contains = |text: &str| memchr::memmem::find(value, text.as_bytes()).is_some();
    let has_line = |text: &[u8]| value.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == text);
    let starts_line = |text: &str| value.starts_with(text.as_bytes()) || contains(&format!("\n{text}"));
    let sets_auth = || {
        value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).any(|line| {
            line.strip_prefix(b"auth").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"= \""))
        })
    };
    contains("registry.configs") && (named_passwords::has_password(value, |_| true) || sets_auth())
        || starts_line("configs:") && has_line(b"auth:") && named_passwords::has_password(value, |_| true)
        || contains("[host.") && contains("header]") && contains("uthorization")
}

/// Returns whether a value is the key of a Google service account, the password of `_json_key`.
fn is_google_key(value: &[u8]) -> bool {
    Raw::first(value)
        .is_ok_and(|json| json.get("private_key").is_some() && json.get("client_email").is_some())
}

/// Finds words in any case. Compiling constants does not fail; without a searcher every text contains one.
struct WordSearcher(LazyLock<Option<AhoCorasick>>);

impl WordSearcher {
    fn are_in(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|words| words.is_match(text))
    }
}

macro_rules! words {
    ($($word:literal),+) => {
        WordSearcher(LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build([$($word),+]).ok()))
    };
}

static REGISTRY_WORDS: WordSearcher = words![
    "registry",
    "docker",
    "kaniko",
    "ghcr",
    "gcr",
    "ecr_",
    "_ecr",
    "quay",
    "harbor",
    "artifactory",
    "_json_key"
];
static PASSWORD_WORDS: WordSearcher = words!["password", "passwd", "token", "auth", "credential"];
static SECRET_WORDS: WordSearcher = words!["password", "passwd", "token", "secret"];
static USER_WORDS: WordSearcher = words!["user", "login"];
static NO_USER_WORDS: WordSearcher = words!["password", "token"];

fn names_registry(key: &str) -> bool {
    REGISTRY_WORDS.are_in(key)
}

fn names_password(key: &str) -> bool {
    PASSWORD_WORDS.are_in(key)
}

/// Returns whether an object is an Argo CD repository credential, or one of Flux.
fn is_repository(parts: &ObjectParts<'_>) -> bool {
    let [namespace, labels] =
        parts.metadata.map(|metadata| metadata.get_all(["namespace", "labels"])).unwrap_or_default();
    let label = labels.and_then(|labels| labels.get("argocd.argoproj.io/secret-type"));
    let is_argo = ["repository", "repo-creds", "repository-write", "repo-write-creds"]
        .iter()
        .any(|kind| is(label, kind));
    let has_password =
        || ["password", "bearerToken", "gcpServiceAccountKey"].into_iter().any(|key| parts.has_key(key));
    is_argo && has_password()
        || is(namespace, "flux-system") && parts.has_key("username") && parts.has_key("password")
}

/// Returns the registry for which Tekton uses a login, from an annotation of its secret.
fn tekton_registry(parts: &ObjectParts<'_>) -> Option<String> {
    let annotations = parts.metadata?.get("annotations")?;
    let mut annotations = annotations.members().map_while(Result::ok);
    let (_, server) = annotations.find(|(key, _)| key.text().starts_with(b"tekton.dev/docker-"))?;
    Some(host_of(&String::from_utf8_lossy(&server.text())))
}

/// User names that are specific to registries: Harbor's robots, GitLab's deploy tokens, and those that clouds require with a key or a token
/// (ECR, Artifact Registry, ACR, IBM, NVIDIA).
fn is_registry_username(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "AWS",
        "_json_key",
        "_json_key_base64",
        "_token",
        "oauth2accesstoken",
        "00000000-0000-0000-0000-000000000000",
        "iamapikey",
        "$oauthtoken",
    ];
    NAMES.contains(&name) || name.starts_with("robot$") || name.starts_with("gitlab+deploy-token-")
}

/// Hosts of registries: a password next to such an address is a password for it.
const REGISTRY_HOSTS: [&str; 16] = [
    "docker.io",
    "hub.docker.com",
    "ghcr.io",
    "gcr.io",
    "quay.io",
    ".pkg.dev",
    ".azurecr.io",
    ".amazonaws.com",
    ".jfrog.io",
    ".ocir.io",
    "icr.io",
    "registry.gitlab.com",
    "registry.redhat.io",
    "registry.digitalocean.com",
    ".scw.cloud",
    "cr.yandex",
];

fn is_known_registry(host: &str) -> bool {
    REGISTRY_HOSTS.iter().any(|known| host.ends_with(known))
        && (!host.ends_with(".amazonaws.com") || host.contains(".dkr.ecr."))
}

/// Combined evidence from the values of a secret.
#[derive(Debug, Default)]
struct KeyHints {
    /// The host of a value that is the address of a registry.
    registry: Option<String>,
    /// The host of another address.
    url: Option<String>,
    username: Option<String>,
    has_registry_username: bool,
    /// Whether it is a chart repository in a registry, as configured in Argo CD.
    is_oci: bool,
    has_password: bool,
}

impl KeyHints {
    /// Whether a password next to these values is one for a registry.
    fn is_for_registry(&self) -> bool {
        self.registry.is_some() || self.has_registry_username || self.is_oci
    }

    /// Adds a key with its value, unless the value cannot be one of these.
    fn add(&mut self, key: &str, value: Option<&[u8]>) {
        self.has_password |= SECRET_WORDS.are_in(key);
        let Some(Ok(value)) = value.map(|value| std::str::from_utf8(value.trim_ascii())) else { return };
        if value.is_empty() || value.len() > MAX_HINT_LEN {
            return;
        }
        if USER_WORDS.are_in(key) && !NO_USER_WORDS.are_in(key) {
            self.has_registry_username |= is_registry_username(value);
            self.username.get_or_insert_with(|| checked_username(value));
        }
        self.is_oci |= key.eq_ignore_ascii_case("enableOCI") && value.eq_ignore_ascii_case("true");
        let host = host_of(value);
        let is_host = host.contains('.') && !host.contains(char::is_whitespace);
        if !is_host {
            return;
        }
        let path = value.split_once(&*host).map_or("", |(_, path)| path);
        let is_bare = matches!(path.trim_matches('/'), "" | "v1" | "v2");
        if value.starts_with("oci://") || is_bare && (is_known_registry(&host) || names_registry(key)) {
            self.registry.get_or_insert(host);
        } else if value.contains("://") || key == "url" {
            self.url.get_or_insert(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn secret(metadata: &str, data: &[(&str, &str)]) -> String {
        let data: Vec<String> =
            data.iter().map(|(key, value)| format!("\"{key}\":\"{}\"", STANDARD.encode(value))).collect();
        format!("{{\"metadata\":{{{metadata}}},\"data\":{{{}}},\"type\":\"Opaque\"}}", data.join(","))
    }

    #[test]
    fn recognizes_registry_credentials_by_content() {
        const CONFIG: &str = r#"{"auths":{"ghcr.io":{"auth":"Ym90Omxvb3Q="}}}"#;
        const GOOGLE: &str = r#"{"type":"service_account","private_key":"loot","client_email":"a@b"}"#;
        const TEKTON: &str = r#""annotations":{"tekton.dev/docker-0":"https://gcr.io"}"#;
        const ARGO: &str = r#""labels":{"argocd.argoproj.io/secret-type":"repo-creds"}"#;
        for (metadata, data, expected) in [
            ("", vec![(".dockerconfigjson", CONFIG)], true),
            ("", vec![("config.json", CONFIG)], true),
            ("", vec![("anything", CONFIG)], true),
            ("", vec![("a", "x"), ("DOCKER_AUTH_CONFIG", &*format!("\n  {CONFIG}"))], true),
            ("", vec![("registry.json", r#"{"auths":{"ghcr.io":{"identitytoken":"loot"}}}"#)], true),
            ("", vec![("auth.json", r#"{"quay.io":{"username":"a","password":"loot"}}"#)], true),
            ("", vec![("kaniko-secret.json", GOOGLE)], true),
            ("", vec![("key.json", GOOGLE)], false),
            (
                "",
                vec![("registries.yaml", "configs:\n  reg.local:\n    auth:\n      password: loot\n")],
                true,
            ),
            ("", vec![("DOCKER_PASSWORD", "loot")], true),
            ("", vec![("password", "loot"), ("username", "bot"), ("registry", "registry.example.com")], true),
            ("", vec![("password", "loot"), ("url", "https://123.dkr.ecr.eu-west-1.amazonaws.com")], true),
            ("", vec![("password", "loot"), ("url", "oci://charts.example.com/team")], true),
            (ARGO, vec![("url", "https://charts.example.com"), ("password", "loot")], true),
            (ARGO, vec![("url", "https://charts.example.com")], false),
            (r#""namespace":"flux-system""#, vec![("username", "a"), ("password", "loot")], true),
            ("", vec![("username", "a"), ("password", "loot")], false),
            ("", vec![("password", "loot"), ("url", "https://s3.eu-west-1.amazonaws.com")], false),
            ("", vec![("password", "loot"), ("image", "ghcr.io/team/app:1")], false),
            ("", vec![("config.json", r#"{"auths":{"ghcr.io":{}},"credsStore":"x"}"#)], false),
            ("", vec![("config.json", r#"{"a":1}"#)], false),
            ("", vec![("config", &*format!("\u{feff}{CONFIG}"))], true),
            ("", vec![("config", &*STANDARD.encode(CONFIG))], true),
            ("", vec![("config", &*STANDARD.encode(STANDARD.encode(CONFIG)))], true),
            ("", vec![("config.yaml", "auths:\n  ghcr.io:\n    auth: Ym90Omxvb3Q=\n")], true),
            ("", vec![(".env", &*format!("# {}\nDOCKER_AUTH_CONFIG={CONFIG}\n", "x".repeat(9000)))], true),
            (
                "",
                vec![("settings", &*format!(r#"{{"pad":"{}","docker":{CONFIG}}}"#, "x".repeat(9000)))],
                true,
            ),
            ("", vec![("key", &*format!("-----BEGIN RSA PRIVATE KEY-----\n{}", "x".repeat(9000)))], false),
            ("", vec![(".env", "A=1\nCI_REGISTRY_USER=bot\nCI_REGISTRY_PASSWORD=loot\n")], true),
            ("", vec![("values.yaml", "global:\n  dockerPassword: loot\n")], true),
            ("", vec![(".env", "DB_PASSWORD=loot\n")], false),
            (TEKTON, vec![("username", "bot"), ("password", "loot")], true),
            (TEKTON, vec![("ssh-privatekey", "x")], false),
            (
                r#""annotations":{"tekton.dev/git-0":"https://github.com"}"#,
                vec![("username", "a"), ("password", "loot")],
                false,
            ),
            ("", vec![("username", "robot$ci"), ("password", "loot")], true),
            ("", vec![("user", "robot$team+ci"), ("token", "loot")], true),
            ("", vec![("username", "robot"), ("password", "loot")], false),
            ("", vec![("username", "robot$ci")], false),
            ("", vec![("username", "AWS"), ("password", &*"loot".repeat(500))], true),
            ("", vec![("username", "_json_key"), ("password", GOOGLE)], true),
            ("", vec![("login", "00000000-0000-0000-0000-000000000000"), ("password", "loot")], true),
            (
                "",
                vec![
                    ("enableOCI", "true"),
                    ("url", "charts.example.com/team"),
                    ("username", "a"),
                    ("password", "loot"),
                ],
                true,
            ),
            (
                "",
                vec![
                    ("enableOCI", "false"),
                    ("url", "charts.example.com/team"),
                    ("username", "a"),
                    ("password", "loot"),
                ],
                false,
            ),
            ("", vec![("registry", "registry.example.com"), ("password", &*"loot".repeat(500))], true),
        ] {
            let text = secret(metadata, &data);
            let found = has_registry_credential(&ObjectParts::of(Raw::first(text.as_bytes()).unwrap()));
            assert_eq!(found, expected, "{metadata} {data:?}");
            let logins = logins_of(Raw::assume(text.as_bytes()), 10);
            assert!(!format!("{logins:?}").contains("loot"));
        }
        let text = secret("", &[("server", "https://ghcr.io"), ("username", "bot"), ("token", "loot")]);
        let logins = logins_of(Raw::assume(text.as_bytes()), 10);
        let login = |host: &str, user: &str| Login { host: Some(host.into()), username: Some(user.into()) };
        assert_eq!(logins, [login("ghcr.io", "bot")]);
        for (metadata, data, expected) in [
            (TEKTON, vec![("username", "bot"), ("password", "loot")], [login("gcr.io", "bot")]),
            (
                "",
                vec![("registry", "harbor.example.com"), ("username", "robot$ci"), ("password", "loot")],
                [login("harbor.example.com", "robot$ci")],
            ),
            (
                "",
                vec![
                    ("enableOCI", "true"),
                    ("url", "charts.example.com/team"),
                    ("username", "bot"),
                    ("password", "loot"),
                ],
                [login("charts.example.com", "bot")],
            ),
            ("", vec![("config", &*STANDARD.encode(CONFIG))], [login("ghcr.io", "bot")]),
        ] {
            let text = secret(metadata, &data);
            assert_eq!(logins_of(Raw::assume(text.as_bytes()), 10), expected, "{data:?}");
        }
        let decoys: Vec<String> = (0..20_000).map(|number| format!("\"d{number}.example\":{{}},")).collect();
        let decoys = decoys.concat();
        let config = format!(r#"{{"auths":{{{decoys}"ghcr.io":{{"auth":"eA=="}}}}}}"#);
        let text = secret("", &[("x", &config)]);
        assert!(
            has_registry_credential(&ObjectParts::of(Raw::assume(text.as_bytes()))),
            "behind many servers without a login"
        );
    }

    #[test]
    fn names_the_keys_of_copies() {
        let config = STANDARD.encode(r#"{"auths":{"ghcr.io":{"auth":"eA=="}}}"#);
        let keys = |resource: &str, body: String| {
            let text = format!(r#"{{"objectRef":{{"resource":"{resource}"}},"requestObject":{body}}}"#);
            let mut event = Event::new(text.as_bytes());
            let request = RequestInfo::of(&mut event);
            copied_configuration_keys(&mut event, &request)
        };
        assert_eq!(
            keys("secrets", format!(r#"{{"type":"Opaque","data":{{"b":"{config}","a":"eA=="}}}}"#)),
            ["b"]
        );
        assert!(
            keys("secrets", format!(r#"{{"type":"kubernetes.io/dockercfg","data":{{"b":"{config}"}}}}"#))
                .is_empty()
        );
        for patch in [
            format!(r#"[{{"op":"add","path":"/data/b","value":"{config}"}}]"#),
            format!(
                r#"[{{"op":"test","path":"/x","value":1}},{{"op":"add","path":"/data","value":{{"b":"{config}"}}}}]"#
            ),
            format!(r#"{{"data":{{"a":"eA=="}},"data":{{"b":"{config}"}}}}"#),
            format!(r#"{{"data":{{"b":"{}\n{}"}}}}"#, &config[..8], &config[8..]),
        ] {
            assert_eq!(keys("secrets", patch.clone()), ["b"], "{patch}");
        }
        let in_place = format!(
            r#"{{"data":{{"b":"{config}"}}}},"responseObject":{{"type":"kubernetes.io/dockerconfigjson"}}"#
        );
        assert!(keys("secrets", in_place).is_empty());
        let plain = r#"{"data":{"x":"{\"auths\":{\"ghcr.io\":{\"auth\":\"eA==\"}}}"}}"#;
        assert_eq!(keys("configmaps", plain.to_owned()), ["x"]);
    }
}
