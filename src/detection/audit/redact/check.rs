//! Checks of values: whether a string has the content that its place in the allowlist requires.
//!
//! Takes the text of a string, returns whether it may be shown. Everything is untrusted: a name is shown because it consists of the
//! characters of names and does not look like a token, not because it is called a name.

/// The strings that may be shown at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AllowedStrings {
    Hidden,
    /// Every string.
    Plain,
    /// Text from the head of an event that a client chooses: anything except tokens.
    Head,
    /// A name, kind, verb, label, path, time or address: no spaces, quotes or queries.
    Name,
    /// The name of a user or group.
    User,
    /// An image reference without credentials.
    Image,
    /// Numbers and booleans; no strings.
    Number,
    /// A request URI, redacted by its parts.
    Uri,
    /// A JSON pointer (RFC 6901).
    Pointer,
}

/// Maximum length of a name, of any kind, in bytes.
const MAX_NAME_LEN: usize = 512;

/// Prefixes of well-known kinds of tokens and keys. A word with such a prefix and at least [`MIN_TOKEN_LEN`] bytes is a token.
const TOKEN_PREFIXES: [&[u8]; 24] = [
    b"eyJ",
    b"ghp_",
    b"gho_",
    b"ghu_",
    b"ghs_",
    b"ghr_",
    b"github_pat_",
    b"glpat-",
    b"gldt-",
    b"glrt-",
    b"xoxb-",
    b"xoxp-",
    b"xoxa-",
    b"AKIA",
    b"ASIA",
    b"AIza",
    b"ya29.",
    b"hvs.",
    b"dckr_",
    b"npm_",
    b"pypi-",
    b"sk-",
    b"sha256~",
    b"SG.",
];

/// Minimum length of a token with a well-known prefix, in bytes.
const MIN_TOKEN_LEN: usize = 16;

/// Minimum length of a random word, in bytes.
const MIN_RANDOM_LEN: usize = 20;

/// Minimum length of a hexadecimal word that counts as random, in bytes. Object names end in shorter hashes.
const MIN_HEX_LEN: usize = 32;

/// Names of common programs, which are shown as the `command` of an exec request. Their arguments are not shown.
const PROGRAMS: [&str; 58] = [
    "apk", "apt", "ash", "awk", "base64", "bash", "busybox", "cat", "chmod", "chroot", "cp", "crictl", "ctr",
    "curl", "dash", "date", "dd", "df", "dig", "docker", "echo", "env", "find", "getent", "git", "grep",
    "head", "hostname", "id", "ip", "kill", "kubectl", "ls", "mount", "mysql", "nc", "node", "nsenter",
    "nslookup", "perl", "pip", "printenv", "ps", "psql", "python", "python3", "rm", "sed", "sh", "sleep",
    "ssh", "tail", "tar", "top", "uname", "wget", "whoami", "zsh",
];

/// Directories of [`PROGRAMS`].
const PROGRAM_DIRECTORIES: [&str; 5] = ["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/"];

impl AllowedStrings {
    /// Whether a string may be shown. [`AllowedStrings::Uri`] is handled elsewhere.
    pub(super) fn allows(self, text: &[u8]) -> bool {
        match self {
            AllowedStrings::Hidden | AllowedStrings::Number | AllowedStrings::Uri => false,
            AllowedStrings::Plain => true,
            AllowedStrings::Head => is_head(text),
            AllowedStrings::Name => is_name(text),
            AllowedStrings::User => is_user(text),
            AllowedStrings::Image => is_image(text),
            AllowedStrings::Pointer => is_pointer(text),
        }
    }
}

/// Whether a text from the head of an event, such as a user agent or an object name, is free of tokens. Object names contain neither
/// capitals nor underscores, so a name that starts like a token is shown.
fn is_head(text: &[u8]) -> bool {
    let is_object_name =
        text.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(byte));
    is_object_name || !(has_known_token(text) || has_authorization(text))
}

/// Whether a text contains the value of an authorization header.
fn has_authorization(text: &[u8]) -> bool {
    const SCHEMES: [&[u8]; 2] = [b"bearer ", b"basic "];
    SCHEMES.iter().any(|scheme| {
        text.windows(scheme.len()).enumerate().any(|(at, window)| {
            let credential = &text[at + scheme.len()..];
            let is_credential = |byte: &u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'-' | b'=')
            };
            window.eq_ignore_ascii_case(scheme)
                && credential.iter().take_while(|byte| is_credential(byte)).count() >= MIN_TOKEN_LEN
        })
    })
}

fn has_only(text: &[u8], punctuation: &[u8]) -> bool {
    text.len() <= MAX_NAME_LEN
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(byte))
}

/// Whether a text is the name of an object or field, a verb, a path or the like. Object names may be random, so only well-known tokens are
/// rejected.
pub(super) fn is_name(text: &[u8]) -> bool {
    has_only(text, b"._:/*-+$") && !has_known_token(text)
}

/// Whether a text is a user or group name, rather than a token in its place.
pub(crate) fn is_user(text: &[u8]) -> bool {
    is_free_name(text) && !looks_like_token(text)
}

/// Whether a text is a name, which may contain any characters except those of queries and objects. It may be random.
pub(super) fn is_free_name(text: &[u8]) -> bool {
    text.len() <= MAX_NAME_LEN
        && !text.iter().fold(false, |found, byte| {
            found | byte.is_ascii_control() | matches!(byte, b'?' | b'&' | b'"' | b'{')
        })
        && !has_known_token(text)
}

/// Whether a text is a host, with or without a port.
pub(crate) fn is_host(text: &[u8]) -> bool {
    !text.is_empty() && has_only(text, b".-_:[]") && !has_known_token(text)
}

/// Whether a text is an image reference, without credentials before its host.
pub(super) fn is_image(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'@');
    let name = parts.next().unwrap_or_default();
    let is_digest = |digest: &[u8]| {
        let mut halves = digest.splitn(2, |&byte| byte == b':');
        halves.next().is_some_and(|algorithm| algorithm.iter().all(u8::is_ascii_alphanumeric))
            && halves.next().is_some_and(|hash| hash.iter().all(u8::is_ascii_hexdigit))
    };
    has_only(name, b"._:/-")
        && !has_known_token(name)
        && parts.next().is_none_or(is_digest)
        && parts.next().is_none()
}

fn is_pointer(text: &[u8]) -> bool {
    text.len() <= 2 * MAX_NAME_LEN
        && text.split(|&byte| byte == b'/').all(|token| {
            is_key(String::from_utf8_lossy(token).replace("~1", "/").replace("~0", "~").as_bytes())
        })
}

/// Whether the key of an object may be shown. Keys are shown everywhere, except for URLs with a query or user, which Kubernetes never uses
/// as keys, and random keys, which may be tokens.
pub(super) fn is_key(text: &[u8]) -> bool {
    has_only(text, b"._:/*-+$~ ") && !looks_like_token(text)
}

/// Whether the value of a selector may be shown.
pub(super) fn is_selector(text: &[u8]) -> bool {
    has_only(text, b"._:/*-=!,() <>\\") && !looks_like_token(text)
}

/// Whether a text is a number, or empty.
pub(super) fn is_number(text: &[u8]) -> bool {
    text.len() <= 20 && text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

/// Whether a text is a boolean as Go's `strconv.ParseBool` reads it, or empty.
pub(super) fn is_boolean(text: &[u8]) -> bool {
    [&b""[..], b"1", b"t", b"T", b"true", b"TRUE", b"True", b"0", b"f", b"F", b"false", b"FALSE", b"False"]
        .contains(&text)
}

/// Whether a text is the name of a common program, with or without its usual directory.
pub(super) fn is_program(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let name = PROGRAM_DIRECTORIES.iter().find_map(|directory| text.strip_prefix(directory)).unwrap_or(text);
    PROGRAMS.contains(&name)
}

/// Whether a text is long and varied enough to contain any kind of token. Most names are not.
#[inline]
fn could_contain_token(text: &[u8]) -> bool {
    text.len() >= MIN_TOKEN_LEN
        // No early exit, so that many bytes are compared at once.
        && text.iter().fold(false, |found, byte| found | byte.is_ascii_digit() | byte.is_ascii_uppercase())
}

/// Whether a word of the text has the format of a well-known kind of token.
fn has_known_token(text: &[u8]) -> bool {
    could_contain_token(text)
        && text
            .split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~')))
            .any(|word| {
                word.len() >= MIN_TOKEN_LEN
                    && TOKEN_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
                    && word.iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            })
}

/// Whether a text contains something that looks like a token: a well-known kind of token, or a long random word.
pub(super) fn looks_like_token(text: &[u8]) -> bool {
    could_contain_token(text)
        && (has_known_token(text)
            || text
                .split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'_' | b'=')))
                .any(is_random))
}

fn is_random(word: &[u8]) -> bool {
    if word.len() < MIN_RANDOM_LEN {
        return false;
    }
    let count = |test: fn(&u8) -> bool| word.iter().filter(|byte| test(byte)).count();
    let digits = count(u8::is_ascii_digit);
    if word.len() >= MIN_HEX_LEN
        && word.iter().all(u8::is_ascii_hexdigit)
        && digits > 0
        && digits < word.len()
    {
        return true;
    }
    // Names in camel case switch between upper and lower case too, but not next to several digits.
    let class = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let changes = word.windows(2).filter(|pair| class(pair[0]) != class(pair[1])).count();
    digits >= 2
        && count(u8::is_ascii_uppercase) >= 2
        && count(u8::is_ascii_lowercase) >= 2
        && changes * 3 >= word.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_tokens_are_not() {
        for name in [
            "",
            "regcred",
            "system:node:ip-10-0-0-1.ec2.internal",
            "kubernetes.io/dockerconfigjson",
            "pods/exec",
            "*",
            "2026-01-01T00:00:00Z",
            "5f8c94ffd6",
            "a1b2c3d4-0000-4000-8000-000000000071",
            "/etc/kubernetes",
        ] {
            assert!(is_name(name.as_bytes()) && is_key(name.as_bytes()), "{name}");
        }
        for token in [
            "ghp_0123456789abcdefABCDEF",
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln",
            "glpat-abcdefghij0123456789",
            "AKIAIOSFODNN7EXAMPLE",
            "a b?c=d",
            "{\"data\":1}",
        ] {
            assert!(!is_name(token.as_bytes()) && !is_user(token.as_bytes()), "{token}");
        }
        assert!(!is_key(b"https://index.docker.io/v1?account=x") && !is_key(b"user:pass@host"));
        assert!(is_key(b"https://index.docker.io/v1/") && is_key(b".dockerconfigjson"));
    }

    #[test]
    fn users_are_shown_and_tokens_in_their_place_are_not() {
        for user in [
            "jane@example.com",
            "system:serviceaccount:prod:deployer",
            "https://accounts.example.com#1234567890",
            "arn:aws:sts::123456789012:assumed-role/Admin/i-0abc12345def67890",
            "Jane Doe",
            "kubernetes-admin",
            "6d5ab0d0-2b0f-4b1e-9d5c-1f1c2d3e4f50",
            "CN=jane,O=devs",
        ] {
            assert!(is_user(user.as_bytes()), "{user}");
        }
        for token in ["x9Kd7Qm2Zp4Lw8Rt5Vb1", "0123456789abcdef0123456789abcdef", "sha256~Xy12Ab34Cd56Ef78"] {
            assert!(!is_user(token.as_bytes()), "{token}");
        }
    }

    #[test]
    fn heads_are_shown_without_tokens() {
        for head in [
            "kubectl/v1.36.0 (linux/amd64) kubernetes/0123456789abcdef0123456789abcdef01234567",
            "sk-frontend-production-2024",
            "sh.helm.release.v1.web.v12",
            "Basic Auth Proxy/1.0",
            "10.0.0.1",
            "",
        ] {
            assert!(is_head(head.as_bytes()), "{head}");
        }
        for token in [
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln",
            "curl/8 (Authorization: Bearer abcdefghijklmnopqr)",
            "x BASIC dXNlcjpwYXNzd29yZA==",
            "client/ghp_0123456789abcdefABCDEF",
        ] {
            assert!(!is_head(token.as_bytes()), "{token}");
        }
    }

    #[test]
    fn images_are_shown_without_credentials() {
        assert!(is_image(b"registry.local:5000/app@sha256:0123456789abcdef") && is_image(b"nginx:1.25"));
        assert!(
            !is_image(b"https://bot:pass@registry.local/app")
                && !is_image(b"x?token=1")
                && !is_image(b"a@b:5000/c")
        );
    }

    #[test]
    fn programs_are_shown_and_their_arguments_are_not() {
        assert!(is_program(b"cat") && is_program(b"/bin/sh") && is_program(b"/usr/bin/env"));
        assert!(!is_program(b"/etc/shadow") && !is_program(b"PASSWORD=x") && !is_program(b"/tmp/sh"));
    }
}
