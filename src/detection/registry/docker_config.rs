//! Docker configurations: which registries a credential is for, and as whom.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::exposure::TYPES;
use super::is;
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Raw, Type};

/// A configuration larger than this, in bytes of base64, comes from no person; its secret is named all the same.
const LARGEST: usize = 1 << 20;

/// So many hosts and user names are kept; an alert is a line.
const MOST: usize = 64;

/// Which registries, and as whom. Never a password or a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogins {
    /// Registry hosts, without scheme and path.
    pub hosts: BTreeSet<String>,
    /// User names.
    pub usernames: BTreeSet<String>,
}

impl RegistryLogins {
    /// Adds what a secret says in `data` (base64) and `stringData` (plain): `.dockerconfigjson`, or the older `.dockercfg`.
    pub fn read(&mut self, secret: Raw<'_>) {
        let plain = |value: Option<Raw<'_>>| {
            value?.string().filter(|text| text.len() <= LARGEST).map(std::borrow::Cow::into_owned)
        };
        let data = |key: &str| decoded(secret.get("data").and_then(|data| data.get(key)));
        let string_data = |key: &str| plain(secret.get("stringData").and_then(|data| data.get(key)));
        for config in [data(".dockerconfigjson"), string_data(".dockerconfigjson")].into_iter().flatten() {
            if let Some(auths) = Raw::first(&config).ok().and_then(|config| config.get("auths")) {
                self.read_auths(auths);
            }
        }
        for config in [data(".dockercfg"), string_data(".dockercfg")].into_iter().flatten() {
            if let Ok(auths) = Raw::first(&config) {
                self.read_auths(auths);
            }
        }
    }

    fn read_auths(&mut self, auths: Raw<'_>) {
        for (host, login) in auths.members().map_while(Result::ok).take(MOST) {
            if login.kind() != Type::Object || self.hosts.len() >= MOST {
                continue;
            }
            self.hosts.insert(host_of(&String::from_utf8_lossy(&host.text())));
            let given = login.get("username").and_then(Raw::string).map(std::borrow::Cow::into_owned);
            // `auth` is base64 of `user:password`; only what stands before the colon is looked at.
            let encoded = || {
                let auth = decoded(login.get("auth"))?;
                let end = memchr::memchr(b':', &auth)?;
                Some(auth[..end].to_vec())
            };
            if let Some(name) = given.filter(|name| !name.is_empty()).or_else(encoded) {
                self.usernames.insert(String::from_utf8_lossy(&name).into_owned());
            }
        }
    }
}

/// The keys of a written object's data that hold a docker configuration, where the object's type does not say so: a copy
/// under another type. Of secrets (base64) and of `stringData` and config maps (plain).
pub fn copied_configuration_keys(event: &mut Event<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    let Some(body) = event.get(Member::RequestObject).filter(|body| body.kind() == Type::Object) else {
        return keys;
    };
    if body.get("type").and_then(Raw::string).is_some_and(|kind| TYPES.contains(&&*kind)) {
        return keys;
    }
    let is_secret = is(event.object().resource, "secrets");
    for (part, is_encoded) in [("data", is_secret), ("stringData", false), ("binaryData", true)] {
        let Some(data) = body.get(part) else { continue };
        for (key, value) in data.members().map_while(Result::ok) {
            let content = if is_encoded {
                decoded(Some(value))
            } else {
                value.string().filter(|text| text.len() <= LARGEST).map(std::borrow::Cow::into_owned)
            };
            if keys.len() < MOST && content.is_some_and(|content| holds_logins(&content)) {
                keys.push(String::from_utf8_lossy(&key.text()).into_owned());
            }
        }
    }
    keys.sort_unstable();
    keys
}

/// Whether a text is a docker configuration with a login in it, in either format.
fn holds_logins(text: &[u8]) -> bool {
    let Ok(config) = Raw::first(text) else { return false };
    let is_login = |login: Raw<'_>| {
        ["auth", "password", "identitytoken", "registrytoken"].iter().any(|key| login.get(key).is_some())
    };
    let logins =
        |servers: Raw<'_>, looks: &dyn Fn(&[u8]) -> bool| {
            servers.members().map_while(Result::ok).take(MOST).any(|(server, login)| {
                login.kind() == Type::Object && looks(&server.text()) && is_login(login)
            })
        };
    match config.get("auths") {
        _ if config.kind() != Type::Object => false,
        Some(auths) => logins(auths, &|_| true),
        // The older format has no frame: its keys must look like servers.
        None => logins(config, &|server| server.iter().any(|byte| matches!(byte, b'.' | b':'))),
    }
}

fn decoded(value: Option<Raw<'_>>) -> Option<Vec<u8>> {
    let text = value?.string()?;
    if text.len() > LARGEST { None } else { STANDARD.decode(&*text).ok() }
}

/// `https://index.docker.io/v1/` is `index.docker.io`. A password may stand before an `@`.
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
        logins.read(Raw::first(data.as_bytes()).unwrap());
        logins
    }

    #[test]
    fn both_formats_say_hosts_and_users_and_no_password() {
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
        plain.read(Raw::assume(br#"{"stringData":{".dockercfg":"{\"quay.io\":{}}"}}"#));
        assert!(plain.hosts.contains("quay.io"));
    }
}
