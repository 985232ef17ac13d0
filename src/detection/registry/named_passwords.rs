//! Passwords in settings files, recognized by keys that mention a registry: `CI_REGISTRY_PASSWORD=…`, `dockerPassword: …`.
//!
//! Takes a text in any of the usual forms (environment files, YAML, JSON, TOML, properties) and returns whether it sets one.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::detection::audit::json::{Raw, Type};

/// Suffixes of password keys, without their first letter, which may be upper or lower case.
const ENDS: [&str; 6] = ["assword", "ASSWORD", "asswd", "ASSWD", "oken", "OKEN"];

/// Maximum length of a key before this suffix.
const MAX_KEY_LEN: usize = 64;

/// Number of bytes of a value that are examined to distinguish it from a YAML or JSON keyword.
const MAX_WORD_LEN: usize = 8;

/// Compiling constants does not fail.
static SEARCHER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(ENDS).ok());

/// Returns whether a text sets a password under a key that `is_of_registry` accepts.
pub(super) fn has_password(text: &[u8], is_of_registry: impl Fn(&str) -> bool) -> bool {
    let Some(searcher) = &*SEARCHER else { return false };
    searcher.find_iter(text).any(|word| {
        sets_value(&text[word.end()..]) && {
            let before = &text[word.start().saturating_sub(MAX_KEY_LEN)..word.start()];
            let length = before.iter().rev().take_while(|byte| is_of_key(**byte)).count();
            let key = &before[before.len() - length..];
            std::str::from_utf8(key).is_ok_and(&is_of_registry)
        }
    })
}

/// Maximum nesting of settings that is searched. Deeper settings count as containing a password.
const MAX_DEPTH: usize = 32;

/// Returns whether settings in JSON contain a password for a registry: by its key, by the key of the enclosing object, next to a registry
/// address, or as the value of a named parameter.
pub(super) fn is_in_settings(settings: Raw<'_>, is_of_registry: fn(&str) -> bool) -> bool {
    is_in(settings, false, is_of_registry, MAX_DEPTH)
}

fn is_in(value: Raw<'_>, is_inside: bool, is_of_registry: fn(&str) -> bool, depth: usize) -> bool {
    if depth == 0 {
        return true;
    }
    match value.kind() {
        Type::Object => {
            let [name, parameter] = value.get_all(["name", "value"]);
            let setting = |key: &[u8], value: &[u8], accepts: &dyn Fn(&str) -> bool| {
                has_password(&[key, b"=", &value[..value.len().min(MAX_WORD_LEN)]].concat(), accepts)
            };
            if let (Some(name), Some(parameter)) =
                (name.and_then(Raw::string), parameter.and_then(Raw::string))
                && setting(&name, &parameter, &is_of_registry)
            {
                return true;
            }
            let (mut has_address, mut has_plain_password) = (false, false);
            for (key, member) in value.members().map_while(Result::ok) {
                let key = key.text();
                let name = String::from_utf8_lossy(&key);
                if let Some(text) = member.string() {
                    let is_address = || text.iter().any(|byte| matches!(byte, b'.' | b':'));
                    has_address |= is_of_registry(&name) && is_address();
                    let is_plain = ["password", "passwd", "token"].contains(&&*name);
                    has_plain_password |= is_plain && setting(&key, &text, &|_| true);
                    if setting(&key, &text, &|key| is_inside || is_of_registry(key)) {
                        return true;
                    }
                } else if is_in(member, is_of_registry(&name), is_of_registry, depth - 1) {
                    return true;
                }
            }
            has_address && has_plain_password
        }
        Type::Array => {
            value.items().map_while(Result::ok).any(|item| is_in(item, is_inside, is_of_registry, depth - 1))
        }
        Type::String | Type::Scalar => false,
    }
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)
}

/// Returns whether the text after a key sets a value that is not empty, a variable, or a template expression.
fn sets_value(rest: &[u8]) -> bool {
    let skip = |text: &[u8], bytes: &[u8]| text.iter().take_while(|byte| bytes.contains(byte)).count();
    let rest = &rest[skip(rest, b"\\\"'")..];
    let rest = &rest[skip(rest, b" \t")..];
    let Some((b':' | b'=', rest)) = rest.split_first() else { return false };
    let rest = &rest[skip(rest, b" \t")..];
    let rest = match rest[skip(rest, b"\\")..].split_first() {
        Some((b'"' | b'\'', value)) => value,
        // A line break in a string inside another text is a backslash and a letter.
        _ if rest.starts_with(b"\\") => return false,
        _ => rest,
    };
    let length = rest
        .iter()
        .take(MAX_WORD_LEN)
        .take_while(|byte| !byte.is_ascii_whitespace() && !b"\\\"',}".contains(byte))
        .count();
    let value = &rest[..length];
    !value.first().is_none_or(|byte| b"{[$<%*&#|>!~".contains(byte))
        && !matches!(value, b"null" | b"true" | b"false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_passwords_by_their_keys() {
        let has = |text: &str| has_password(text.as_bytes(), |key| key.to_lowercase().contains("registry"));
        for text in [
            "CI_REGISTRY_PASSWORD=loot",
            "A=1\nexport REGISTRY_TOKEN='loot'\n",
            "image:\n  registryPassword: \"loot\"\n",
            r#"{"a":{"registry_password": "loot"}}"#,
            r#"{"values":"a: b\nregistryToken: \"loot\"\n"}"#,
            "my.registry.passwd = loot",
            "registry-password=loot",
        ] {
            assert!(has(text), "{text}");
        }
        assert!(has(&format!("{}registryPassword: loot", "token ".repeat(20_000))), "behind many others");
        for text in [
            "DB_PASSWORD=loot",
            "CI_REGISTRY_PASSWORD=",
            "CI_REGISTRY_PASSWORD=\nA=loot",
            "registryPassword: \"\"",
            "registryPassword: null",
            "registryPassword: ${PASSWORD}",
            "registryPassword: {{ .Values.password }}",
            r#"{"registryPassword":""}"#,
            r#"{"values":"registryPassword: \nother: loot"}"#,
            r#"{"values":"registryPassword: \"\"\nother: loot"}"#,
            "registryPasswordKey: password",
            "- name: REGISTRY_PASSWORD\n  value: x",
            "the registry password",
            "registryToken",
            "registryToken:",
        ] {
            assert!(!has(text), "{text}");
        }
    }

    #[test]
    fn finds_passwords_in_settings() {
        let has = |settings: &str| {
            let is_of_registry = |name: &str| name.to_lowercase().contains("registry");
            is_in_settings(Raw::first(settings.as_bytes()).unwrap(), is_of_registry)
        };
        for settings in [
            r#"{"registryPassword":"loot"}"#,
            r#"{"a":[{"registry":{"password":"loot"}}]}"#,
            r#"{"imageCredentials":{"registry":"quay.io","username":"a","password":"loot"}}"#,
            r#"[{"name":"image.tag","value":"1"},{"name":"registry.password","value":"loot"}]"#,
        ] {
            assert!(has(settings), "{settings}");
        }
        for settings in [
            r#"{"registryPassword":""}"#,
            r#"{"registryPassword":"${PASSWORD}"}"#,
            r#"{"registry":"quay.io","auth":{"password":"loot"}}"#,
            r#"{"registry":"quay.io","adminPassword":"loot"}"#,
            r#"{"registry":{"existingSecret":"loot"}}"#,
            r#"[{"name":"registry","value":"quay.io"},{"name":"db.password","value":"loot"}]"#,
            r#"[{"name":"registry.password","valueFrom":{"secretKeyRef":{"name":"x"}}}]"#,
            "[]",
        ] {
            assert!(!has(settings), "{settings}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(MAX_DEPTH), "1") + &"}".repeat(MAX_DEPTH);
        assert!(has(&deep), "what is not read counts");
    }
}
