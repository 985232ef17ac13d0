//! Docker configurations: which registries a credential is for, and with which user name.
//!
//! Takes the objects of secrets and config maps and returns registry hosts and user names ([`RegistryLogins`]), or which of
//! their keys hold a docker configuration. A password or token must never leave this file.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::RequestInfo;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// The types of secrets that hold registry credentials.
pub(super) const SECRET_TYPES: [&[u8]; 2] = [b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"];

/// The keys of their data, in the same order.
pub(super) const DATA_KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// Maximum size of a configuration that is read, in bytes of base64. The API allows 1 MiB for a whole secret.
const MAX_CONFIG_LEN: usize = 1 << 20;

/// Maximum number of hosts, and of user names.
const MAX_LOGINS: usize = 64;

/// Which registries, and as whom. Never a password or a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogins {
    /// Registry hosts, without scheme and path.
    pub hosts: BTreeSet<String>,
    pub usernames: BTreeSet<String>,
}

impl RegistryLogins {
    /// Adds the logins of a secret's `data` (base64) and `stringData` (plain).
    pub(super) fn add_secret(&mut self, secret: Raw<'_>) {
        let [json_key, legacy_key] = DATA_KEYS;
        let data = |key: &str| decode_base64(secret.get("data").and_then(|data| data.get(key)));
        let string_data = |key: &str| plain(secret.get("stringData").and_then(|data| data.get(key)));
        for config in [data(json_key), string_data(json_key)].into_iter().flatten() {
            if let Some(auths) = Raw::first(&config).ok().and_then(|config| config.get("auths")) {
                self.add_servers(auths);
            }
        }
        for config in [data(legacy_key), string_data(legacy_key)].into_iter().flatten() {
            if let Ok(auths) = Raw::first(&config) {
                self.add_servers(auths);
            }
        }
    }

    fn add_servers(&mut self, servers: Raw<'_>) {
        for (server, login) in servers.members().map_while(Result::ok).take(MAX_LOGINS) {
            if login.kind() != Type::Object || self.hosts.len() >= MAX_LOGINS {
                continue;
            }
            self.hosts.insert(host_of(&String::from_utf8_lossy(&server.text())));
            let username = login.get("username").and_then(Raw::string).map(Cow::into_owned);
            // `auth` is base64 of `user:password`; only the part before the colon is used.
            let encoded = || {
                let auth = decode_base64(login.get("auth"))?;
                let end = memchr::memchr(b':', &auth)?;
                Some(auth[..end].to_vec())
            };
            if let Some(name) = username.filter(|name| !name.is_empty()).or_else(encoded) {
                self.usernames.insert(String::from_utf8_lossy(&name).into_owned());
            }
        }
    }
}

/// Returns the keys of a written object's data that hold a docker configuration although the object's type does not say so:
/// a copy of a credential. Reads secrets (base64), and `stringData` and config maps (plain).
pub(crate) fn copied_configuration_keys(event: &mut Event<'_>, request: &RequestInfo) -> Vec<String> {
    let mut keys = Vec::new();
    let Some(body) = event.get(Member::RequestObject).filter(|body| body.kind() == Type::Object) else {
        return keys;
    };
    if body.get("type").and_then(Raw::string).is_some_and(|kind| SECRET_TYPES.contains(&&*kind)) {
        return keys;
    }
    for (part, is_encoded) in
        [("data", request.resource == "secrets"), ("stringData", false), ("binaryData", true)]
    {
        let Some(data) = body.get(part) else { continue };
        for (key, value) in data.members().map_while(Result::ok) {
            let content = if is_encoded { decode_base64(Some(value)) } else { plain(Some(value)) };
            if keys.len() < MAX_LOGINS && content.is_some_and(|content| has_login(&content)) {
                keys.push(String::from_utf8_lossy(&key.text()).into_owned());
            }
        }
    }
    keys.sort_unstable();
    keys
}

/// Returns whether a text is a docker configuration, of either format, with a login.
fn has_login(text: &[u8]) -> bool {
    let Ok(config) = Raw::first(text) else { return false };
    let is_login = |login: Raw<'_>| {
        ["auth", "password", "identitytoken", "registrytoken"].iter().any(|key| login.get(key).is_some())
    };
    let any_login = |servers: Raw<'_>, is_server: &dyn Fn(&[u8]) -> bool| {
        servers.members().map_while(Result::ok).take(MAX_LOGINS).any(|(server, login)| {
            login.kind() == Type::Object && is_server(&server.text()) && is_login(login)
        })
    };
    match config.get("auths") {
        _ if config.kind() != Type::Object => false,
        Some(auths) => any_login(auths, &|_| true),
        // The legacy format has no enclosing key, so its keys must look like servers.
        None => any_login(config, &|server| server.iter().any(|byte| matches!(byte, b'.' | b':'))),
    }
}

fn plain(value: Option<Raw<'_>>) -> Option<Vec<u8>> {
    value?.string().filter(|text| text.len() <= MAX_CONFIG_LEN).map(Cow::into_owned)
}

fn decode_base64(value: Option<Raw<'_>>) -> Option<Vec<u8>> {
    let text = value?.string()?;
    if text.len() > MAX_CONFIG_LEN { None } else { STANDARD.decode(&*text).ok() }
}

/// Returns the host of a server's address: `index.docker.io` of `https://index.docker.io/v1/`. A user name and password
/// before an `@` are dropped.
fn host_of(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, config: &str) -> RegistryLogins {
        let data = format!("{{\"data\":{{\"{key}\":\"{}\"}}}}", STANDARD.encode(config));
        let mut logins = RegistryLogins::default();
        logins.add_secret(Raw::first(data.as_bytes()).unwrap());
        logins
    }

    #[test]
    fn reads_hosts_and_user_names_of_both_formats_and_no_password() {
        let auth = STANDARD.encode("robot:loot");
        let config = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"ghcr.io":{{"username":"bot","password":"loot"}}}}}}"#
        );
        let logins = read(".dockerconfigjson", &config);
        assert_eq!(logins.hosts.iter().collect::<Vec<_>>(), ["ghcr.io", "index.docker.io"]);
        assert_eq!(logins.usernames.iter().collect::<Vec<_>>(), ["bot", "robot"]);
        assert!(!format!("{logins:?}").contains("loot"));
        let old = read(".dockercfg", r#"{"quay.io":{"username":"a","password":"loot"}}"#);
        assert_eq!((old.hosts.len(), old.usernames.len()), (1, 1));
        let url = read(".dockercfg", r#"{"https://bot:loot@quay.io/v1":{}}"#);
        assert!(url.hosts.contains("quay.io") && !format!("{url:?}").contains("loot"));
        assert_eq!(read(".dockerconfigjson", "no json"), RegistryLogins::default());
        let mut plain = RegistryLogins::default();
        plain.add_secret(Raw::assume(br#"{"stringData":{".dockercfg":"{\"quay.io\":{}}"}}"#));
        assert!(plain.hosts.contains("quay.io"));
    }
}
