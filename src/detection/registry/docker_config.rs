//! Docker configurations: which registries a credential is for, and with which user name.
//!
//! Takes texts that may be docker configurations and returns their logins without passwords ([`Login`]). A password or token
//! must never leave this file.

use std::borrow::Cow;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::login::{BASE64, Login, decode_base64};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::redact::{REDACTED, is_host, is_user_name};

/// The types of secrets that hold registry credentials.
pub(super) const SECRET_TYPES: [&[u8]; 2] = [b"kubernetes.io/dockerconfigjson", b"kubernetes.io/dockercfg"];

/// The key in `data` of each type in [`SECRET_TYPES`], in the same order.
pub(super) const DATA_KEYS: [&str; 2] = [".dockerconfigjson", ".dockercfg"];

/// The members of a login that hold a password or a token.
const SECRET_KEYS: [&str; 4] = ["auth", "password", "identitytoken", "registrytoken"];

/// The registries and user names of a Docker configuration, never passwords or tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogins {
    /// Registry hosts, without scheme and path, each once.
    pub hosts: Vec<String>,
    /// User names, each once.
    pub usernames: Vec<String>,
}

/// Appends the logins of a docker configuration of either format, up to a total of `limit`.
pub(super) fn add_logins(text: &[u8], is_known_format: bool, limit: usize, logins: &mut Vec<Login>) {
    let Ok(config) = Raw::first(text) else { return };
    let Some((servers, is_framed)) = servers_of(config) else { return };
    for (server, login) in servers.into_iter().flat_map(|servers| servers.members().map_while(Result::ok)) {
        if logins.len() >= limit {
            return;
        }
        let server = server.text();
        if login.kind() != Type::Object || !is_framed && !is_known_format && !is_server(&server) {
            continue;
        }
        let host = Some(host_of(&String::from_utf8_lossy(&server)));
        logins.push(Login::new(host, username_of(login)));
    }
}

/// A server of a configuration that is not necessarily a complete JSON text.
pub(super) struct Server<'t> {
    name: Cow<'t, [u8]>,
    login: ServerLogin<'t>,
}

enum ServerLogin<'t> {
    Json(Raw<'t>),
    Yaml(YamlLogin<'t>),
}

/// What YAML lines state about a server.
#[derive(Default)]
struct YamlLogin<'t> {
    username: Option<&'t [u8]>,
    auth: Option<&'t [u8]>,
    has_secret: bool,
    has_password: bool,
}

impl<'t> Server<'t> {
    /// A server in YAML; none if the key is not a server address.
    pub(super) fn named(name: &'t [u8]) -> Option<Self> {
        let is_name = is_server(name) || name == b"localhost";
        is_name.then(|| Server { name: name.into(), login: ServerLogin::Yaml(YamlLogin::default()) })
    }

    /// A server with a login, of which nothing else was read.
    pub(super) fn unknown() -> Self {
        let login = YamlLogin { has_secret: true, ..YamlLogin::default() };
        Server { name: Cow::Borrowed(b""), login: ServerLogin::Yaml(login) }
    }

    /// Adds the content of a line of YAML.
    pub(super) fn add(&mut self, key: &[u8], value: &'t [u8]) {
        let ServerLogin::Yaml(login) = &mut self.login else { return };
        if matches!(value, b"" | b"null" | b"~") {
            return;
        }
        login.has_secret |= is_secret_key(key);
        if key.eq_ignore_ascii_case(b"username") {
            login.username = Some(value);
        } else if key.eq_ignore_ascii_case(b"auth") {
            login.auth = Some(value);
        } else if is_secret_key(key) {
            login.has_password |= is_password(value);
        }
    }

    pub(super) fn has_secret(&self) -> bool {
        match &self.login {
            ServerLogin::Json(login) => has_secret(*login),
            ServerLogin::Yaml(login) => login.has_secret,
        }
    }

    pub(super) fn login(&self) -> Login {
        let host = (!self.name.is_empty()).then(|| host_of(&String::from_utf8_lossy(&self.name)));
        Login::new(
            host,
            match &self.login {
                ServerLogin::Json(login) => username_of(*login),
                ServerLogin::Yaml(login) => login.username(),
            },
        )
    }
}

impl YamlLogin<'_> {
    fn username(&self) -> Option<String> {
        let auth = self.auth.and_then(|auth| BASE64.decode(auth).ok()).unwrap_or_default();
        let mut parts = auth.splitn(2, |byte| *byte == b':');
        let (encoded_name, encoded_password) = (parts.next()?, parts.next().unwrap_or_default());
        let name = self.username.unwrap_or(encoded_name);
        if name.is_empty() {
            return None;
        }
        let has_password = self.has_password || is_password(encoded_password);
        Some(if has_password {
            checked_username(&String::from_utf8_lossy(name))
        } else {
            REDACTED.to_owned()
        })
    }
}

/// Returns the servers below `auths` in JSON.
pub(super) fn servers_in(auths: Raw<'_>) -> impl Iterator<Item = Server<'_>> {
    let members = auths.members().map_while(Result::ok).filter(|(_, login)| login.kind() == Type::Object);
    members.map(|(name, login)| Server { name: name.text(), login: ServerLogin::Json(login) })
}

/// Returns the servers of a complete JSON text, in either format.
pub(super) fn servers_of_text(text: &[u8]) -> impl Iterator<Item = Server<'_>> {
    let (servers, is_framed) = Raw::first(text).ok().and_then(servers_of).unwrap_or_default();
    let servers = servers.into_iter().flat_map(servers_in);
    servers.filter(move |server| is_framed || is_server(&server.name))
}

/// Returns whether a member of this name holds the password or the token of a login.
pub(super) fn is_secret_key(key: &[u8]) -> bool {
    SECRET_KEYS.iter().any(|known| key.eq_ignore_ascii_case(known.as_bytes()))
}

fn has_secret(login: Raw<'_>) -> bool {
    SECRET_KEYS.into_iter().any(|key| texts(login, key).next().is_some())
}

/// Returns the user name of a login, or [`REDACTED`] if it is a token in place of a user name: some registries accept a token as the user,
/// with an empty or fixed password.
fn username_of(login: Raw<'_>) -> Option<String> {
    let member = |name| texts(login, name).next();
    // `auth` is base64 of `user:password`.
    let auth = decode_base64(named(login, "auth").next());
    let (encoded_name, encoded_password) = match &auth {
        Some(auth) => {
            let end = memchr::memchr(b':', auth).unwrap_or(auth.len());
            (&auth[..end], auth.get(end + 1..).unwrap_or_default())
        }
        None => (&[][..], &[][..]),
    };
    let name = member("username").unwrap_or(Cow::Borrowed(encoded_name));
    if name.is_empty() {
        return None;
    }
    // A user name without a password is a real one: there is no password that it could replace.
    let is_alone = auth.is_none() && named(login, "password").next().is_none();
    let has_password = is_alone
        || is_password(encoded_password)
        || member("password").is_some_and(|password| is_password(&password))
        || member("identitytoken").is_some()
        || member("registrytoken").is_some();
    Some(if has_password { checked_username(&String::from_utf8_lossy(&name)) } else { REDACTED.to_owned() })
}

/// Returns whether a password is a real one: if a token is used as the user name, the password is empty or fixed.
fn is_password(password: &[u8]) -> bool {
    !matches!(password, b"" | b"x-oauth-basic" | b"x-access-token")
}

/// Returns a user name, or [`REDACTED`] if it looks like a token.
pub(super) fn checked_username(name: &str) -> String {
    if is_user_name(name.as_bytes()) { name.to_owned() } else { REDACTED.to_owned() }
}

/// Returns whether a text is a docker configuration, of either format, with a login.
pub(super) fn has_login(text: &[u8]) -> bool {
    let Ok(config) = Raw::first(text) else { return false };
    let Some((servers, is_framed)) = servers_of(config) else { return false };
    servers
        .into_iter()
        .flat_map(|servers| servers.members().map_while(Result::ok))
        .any(|(server, login)| has_secret(login) && (is_framed || is_server(&server.text())))
}

/// The members of an object with a name in any case, all of them: Go reads them like this, and so do all programs that pull images.
fn named<'a>(object: Raw<'a>, name: &'static str) -> impl Iterator<Item = Raw<'a>> {
    let members = object.members().map_while(Result::ok);
    members.filter(|(key, _)| key.text().eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// Their non-empty strings.
fn texts<'a>(object: Raw<'a>, name: &'static str) -> impl Iterator<Item = Cow<'a, [u8]>> {
    named(object, name).filter_map(Raw::string).filter(|text| !text.is_empty())
}

/// Returns the servers of a configuration, and whether they are in `auths`. The legacy format has no enclosing key.
fn servers_of(config: Raw<'_>) -> Option<(Vec<Raw<'_>>, bool)> {
    if config.kind() != Type::Object {
        return None;
    }
    let auths: Vec<Raw<'_>> = named(config, "auths").collect();
    Some(if auths.is_empty() { (vec![config], false) } else { (auths, true) })
}

/// In the legacy format the keys must look like servers.
fn is_server(key: &[u8]) -> bool {
    key.iter().any(|byte| matches!(byte, b'.' | b':'))
}

/// Returns the host of a server's address: `index.docker.io` of `https://index.docker.io/v1/`. A user name and password before an `@` are
/// dropped, and so are path and query. A text that is not a host becomes [`REDACTED`].
pub(super) fn host_of(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if is_host(host.as_bytes()) { host.to_owned() } else { REDACTED.to_owned() }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::detection::registry::content::logins_of;

    fn read(key: &str, config: &str) -> Vec<Login> {
        let data = format!("{{\"data\":{{\"{key}\":\"{}\"}}}}", STANDARD.encode(config));
        logins_of(Raw::first(data.as_bytes()).unwrap(), 100)
    }

    fn hosts(logins: &[Login]) -> Vec<&str> {
        logins.iter().filter_map(|login| login.host.as_deref()).collect()
    }

    #[test]
    fn reads_hosts_and_user_names_of_both_formats_and_no_password() {
        let auth = STANDARD.encode("robot:loot");
        let config = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"ghcr.io":{{"username":"bot","password":"loot"}}}}}}"#
        );
        let logins = read(".dockerconfigjson", &config);
        assert_eq!(hosts(&logins), ["index.docker.io", "ghcr.io"]);
        let usernames: Vec<_> = logins.iter().filter_map(|login| login.username.as_deref()).collect();
        assert_eq!(usernames, ["robot", "bot"]);
        assert!(!format!("{logins:?}").contains("loot"));
        let legacy = read(".dockercfg", r#"{"quay.io":{"username":"a","password":"loot"}}"#);
        assert_eq!((hosts(&legacy), legacy[0].username.as_deref()), (vec!["quay.io"], Some("a")));
        let url = read(".dockercfg", r#"{"https://bot:loot@quay.io/v1":{}}"#);
        assert!(hosts(&url) == ["quay.io"] && !format!("{url:?}").contains("loot"));
        for (server, host) in [
            ("https://ghcr.io/v2?token=loot", "ghcr.io"),
            ("ghcr.io?loot", "ghcr.io"),
            ("lo.o t", "<redacted>"),
        ] {
            let config = format!(r#"{{"{server}":{{"username":"a","password":"loot"}}}}"#);
            assert_eq!(hosts(&read(".dockercfg", &config)), [host]);
        }
        assert!(read(".dockerconfigjson", "no json").is_empty());
        let plain = Raw::assume(br#"{"stringData":{".dockercfg":"{\"quay.io\":{}}"}}"#);
        assert_eq!(hosts(&logins_of(plain, 100)), ["quay.io"]);
    }

    #[test]
    fn redacts_tokens_in_the_place_of_user_names() {
        let name = |auth: &str, more: &str| {
            let auth = STANDARD.encode(auth);
            let config = format!(r#"{{"ghcr.io":{{"auth":"{auth}"{more}}}}}"#);
            read(".dockercfg", &config)[0].username.clone()
        };
        for auth in ["loot:", "loot:x-oauth-basic", "loot", "x9Kd7Qm2Zp4Lw8Rt5Vb1:loot"] {
            assert_eq!(name(auth, "").as_deref(), Some("<redacted>"), "{auth}");
        }
        let azure = "00000000-0000-0000-0000-000000000000";
        let with_token = name(&format!("{azure}:"), r#","identitytoken":"loot""#);
        assert_eq!(with_token.as_deref(), Some(azure));
    }

    #[test]
    fn a_configuration_without_a_login_is_none() {
        for (text, expected) in [
            (r#"{"auths":{"ghcr.io":{"auth":"eA=="}}}"#, true),
            (r#"{"auths":{"ghcr.io":{"identitytoken":"x"}}}"#, true),
            (r#"{"Auths":{"ghcr.io":{"AUTH":"eA=="}}}"#, true),
            (r#"{"auths":{},"auths":{"ghcr.io":{"auth":"","auth":"eA=="}}}"#, true),
            (r#"{"auths":{"ghcr.io":{}},"credsStore":"ecr-login"}"#, false),
            (r#"{"auths":{"ghcr.io":{"auth":""}}}"#, false),
            (r#"{"ghcr.io":{"password":"x"}}"#, true),
            (r#"{"user":{"password":"x"}}"#, false),
            ("[1]", false),
        ] {
            assert_eq!(has_login(text.as_bytes()), expected, "{text}");
        }
    }
}
