//! Docker configurations inside other texts: below another key of a document, as YAML, in a line of an environment file, in a string of a
//! program's configuration, and in base64 or hexadecimal in any of these.
//!
//! Takes a text and returns whether it contains a login, and the logins without passwords. Each occurrence is found by the word `auths`, by
//! its base64 encoding, or by the key of a secret; a text without any of these costs one search.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Match};

use super::docker_config::{self, Server};
use super::encodings::decode;
use super::login::Login;
use crate::detection::audit::json::{Raw, Type};
use crate::detection::audit::uri::decode_percent;

/// Maximum number of occurrences in one text. Each is read to its end, and together they take time proportional to the length of the text.
/// A text with more counts as a login.
const MAX_PLACES: usize = 64;

/// Maximum nesting of texts in texts.
const MAX_DEPTH: usize = 4;

/// Maximum number of bytes examined before a YAML key.
const MAX_INDENT: usize = 256;

/// Minimum length of base64 that is decoded.
const MIN_BASE64_LEN: usize = 16;

/// Markers of a configuration: its key, in three spellings, since a case-insensitive search is several times slower; the key of a secret in
/// a manifest; the key in base64, at each of the three possible offsets; and the key in hexadecimal.
const MARKERS: [&str; 9] = [
    "auths",
    "Auths",
    "AUTHS",
    "dockerconfigjson",
    ".dockercfg",
    "ImF1dGhzI",
    "JhdXRocy",
    "iYXV0aHMi",
    "22617574687322",
];

/// Indexes into [`MARKERS`]: of the first one that is a secret's key, the first one in base64, and the one in hexadecimal.
const FIRST_SECRET_KEY: usize = 3;
const FIRST_BASE64: usize = 5;
const HEXADECIMAL: usize = 8;

/// Offset of each base64 marker within its group of four characters.
const BASE64_OFFSETS: [usize; 3] = [0, 2, 3];

/// Compiling constants does not fail.
static SEARCHER: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(MARKERS).ok());

/// Returns whether a text is or contains a docker configuration with a login.
pub(super) fn has_login(text: &[u8]) -> bool {
    docker_config::has_login(text) || search(text, MAX_DEPTH, &mut |server| server.has_secret())
}

/// Appends the logins of a text that is or contains docker configurations, up to a total of `limit`.
pub(super) fn add_logins(text: &[u8], is_known_format: bool, limit: usize, logins: &mut Vec<Login>) {
    let before = logins.len();
    docker_config::add_logins(text, is_known_format, limit, logins);
    if logins.len() > before {
        return;
    }
    search(text, MAX_DEPTH, &mut |server| {
        if logins.len() < limit && server.has_secret() {
            let login = server.login();
            if login.host.is_some() && !logins.contains(&login) {
                logins.push(login);
            }
        }
        logins.len() >= limit
    });
}

/// Calls a function with each server of each configuration in a text until it returns true. Returns whether it did, or whether there are
/// too many occurrences to examine.
fn search(text: &[u8], depth: usize, found: &mut dyn FnMut(&Server<'_>) -> bool) -> bool {
    let Some(searcher) = &*SEARCHER else { return true };
    let (mut end, mut places, mut may_unescape) = (0, 0, [depth > 0; 3]);
    for place in searcher.find_iter(text) {
        if place.start() < end {
            continue;
        }
        if places == MAX_PLACES {
            return true;
        }
        let outcome = match place.pattern().as_usize() {
            HEXADECIMAL => read_hexadecimal(text, end, place.start(), depth, found),
            pattern if pattern >= FIRST_BASE64 => {
                let start = base64_start(text, end, place.start(), BASE64_OFFSETS[pattern - FIRST_BASE64]);
                read_base64(text, start, depth, found)
            }
            _ => read_place(text, &place, depth, found),
        };
        match outcome {
            Occurrence::Found => return true,
            Occurrence::Other => continue,
            Occurrence::ReadTo(read) => end = read,
            // All other markers may be escaped as well.
            Occurrence::Escaped(escape) if std::mem::take(&mut may_unescape[escape as usize]) => {
                if search(&unescaped(text, escape), depth - 1, found) {
                    return true;
                }
            }
            Occurrence::Escaped(_) => {}
        }
        places += 1;
    }
    // The key of a configuration may also be split by a line break.
    depth > 0 && joined_lines(text).is_some_and(|joined| search(&joined, depth - 1, found))
}

/// The result of examining an occurrence.
enum Occurrence {
    Found,
    /// Just a word of a text.
    Other,
    /// The text was read up to this position.
    ReadTo(usize),
    /// It is in a string inside another text.
    Escaped(Escape),
}

/// How the quotes of a text are written inside another text.
#[derive(Clone, Copy)]
enum Escape {
    /// Backslashes, as in JSON.
    Backslash,
    /// `%22`, as in an address.
    Percent,
    /// `&quot;`, as in HTML and XML.
    Entity,
}

fn unescaped(text: &[u8], escape: Escape) -> Vec<u8> {
    match escape {
        Escape::Backslash => {
            let quoted = [b"\"", text, b"\""].concat();
            Raw::assume(&quoted).string().unwrap_or_default().into_owned()
        }
        Escape::Percent => decode_percent(text, false).into_owned(),
        Escape::Entity => String::from_utf8_lossy(text).replace("&quot;", "\"").into_bytes(),
    }
}

/// Returns the start of the base64 text that contains the marker: the preceding characters on the same line, in whole groups of four.
fn base64_start(text: &[u8], after: usize, place: usize, offset: usize) -> usize {
    let before =
        text[after..place].iter().rev().take_while(|byte| is_base64(**byte) && **byte != b'=').count();
    place - before.checked_sub(offset).map_or(before, |before| offset + before / 4 * 4)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte)
}

/// Decodes the hexadecimal text that contains the marker.
fn read_hexadecimal(
    text: &[u8],
    after: usize,
    place: usize,
    depth: usize,
    found: &mut dyn FnMut(&Server<'_>) -> bool,
) -> Occurrence {
    let before = text[after..place].iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let digits = text[place - before / 2 * 2..].iter().map_while(|byte| char::from(*byte).to_digit(16));
    let digits: Vec<u32> = digits.collect();
    let end = place - before / 2 * 2 + digits.len();
    let decoded: Vec<u8> =
        digits.as_chunks::<2>().0.iter().map(|[high, low]| (high * 16 + low).to_le_bytes()[0]).collect();
    if depth > 0 && search(&decoded, depth - 1, found) { Occurrence::Found } else { Occurrence::ReadTo(end) }
}

fn read_place(
    text: &[u8],
    place: &Match,
    depth: usize,
    found: &mut dyn FnMut(&Server<'_>) -> bool,
) -> Occurrence {
    let is_servers = place.pattern().as_usize() < FIRST_SECRET_KEY;
    if is_servers
        && text[..place.start()]
            .last()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte))
        && !text[..place.start()].ends_with(b"%22")
    {
        return Occurrence::Other;
    }
    let mut at = place.end();
    let is_escaped = text.get(at) == Some(&b'\\');
    at += text[at..].iter().take_while(|byte| matches!(byte, b'\\' | b'"' | b'\'')).count();
    for (quote, escape) in [(&b"&quot;"[..], Escape::Entity), (b"%22", Escape::Percent)] {
        if text[place.end()..].starts_with(quote) {
            return Occurrence::Escaped(escape);
        }
    }
    // A TOML table.
    if is_servers && text[at..].starts_with(b".") && text[..place.start()].ends_with(b"[") {
        let (is_secret, length) = read_table(&text[at..]);
        let is_found = is_secret && found(&Server::unknown());
        return if is_found { Occurrence::Found } else { Occurrence::ReadTo(at + length) };
    }
    at = skip_blanks(text, at);
    if text.get(at) != Some(&b':') {
        return Occurrence::Other;
    }
    at = skip_blanks(text, at + 1);
    if is_escaped || text.get(at) == Some(&b'\\') {
        return Occurrence::Escaped(Escape::Backslash);
    }
    if !is_servers {
        at += text[at..].iter().take_while(|byte| b"\"'|>- \t\r\n".contains(byte)).count();
        return read_base64(text, at, depth, found);
    }
    match text.get(at) {
        Some(b'{') => {
            if let Ok(servers) = Raw::first(&text[at..])
                && servers.kind() == Type::Object
                && servers.members().next().is_some_and(|member| member.is_ok())
            {
                let is_found = docker_config::servers_in(servers).any(|server| found(&server));
                return if is_found {
                    Occurrence::Found
                } else {
                    Occurrence::ReadTo(at + servers.bytes().len())
                };
            }
            let end = flow_end(text, at);
            if flow_has_secret(&text[at..end]) && found(&Server::unknown()) {
                return Occurrence::Found;
            }
            Occurrence::ReadTo(end)
        }
        // A YAML alias.
        Some(b'*') if text.get(at + 1).is_some_and(u8::is_ascii_alphanumeric) => {
            if found(&Server::unknown()) { Occurrence::Found } else { Occurrence::ReadTo(at) }
        }
        Some(b'\n' | b'\r' | b'#') => {
            let before = &text[place.start().saturating_sub(MAX_INDENT)..place.start()];
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let before = &before[start..];
            let is_key = before.iter().all(|byte| matches!(byte, b' ' | b'-' | b'"' | b'\''));
            if !is_key {
                return Occurrence::Other;
            }
            let indent = before.iter().filter(|byte| matches!(byte, b' ' | b'-')).count();
            let (is_found, length) = read_block(&text[at..], indent, found);
            if is_found { Occurrence::Found } else { Occurrence::ReadTo(at + length) }
        }
        _ => Occurrence::Other,
    }
}

fn skip_blanks(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Decodes base64 from the given position.
fn read_base64(
    text: &[u8],
    start: usize,
    depth: usize,
    found: &mut dyn FnMut(&Server<'_>) -> bool,
) -> Occurrence {
    let end = start + text[start..].iter().take_while(|byte| is_base64(**byte)).count();
    if depth == 0 || end - start < MIN_BASE64_LEN {
        return Occurrence::ReadTo(end);
    }
    let letters = &text[start..end];
    // Text that is cut off after some character is decoded as far as possible.
    let decoded = decode(letters).or_else(|| decode(&letters[..letters.len() / 4 * 4]));
    let Some(decoded) = decoded else { return Occurrence::ReadTo(end) };
    let is_found = docker_config::servers_of_text(&decoded).any(|server| found(&server))
        || search(&decoded, depth - 1, found);
    if is_found { Occurrence::Found } else { Occurrence::ReadTo(end) }
}

/// Returns multi-line base64 joined to one line; none if there are no line breaks. A line break may be escaped.
fn joined_lines(text: &[u8]) -> Option<Vec<u8>> {
    let (mut joined, mut copied) = (Vec::new(), 0);
    for at in memchr::memchr3_iter(b'\r', b'\n', b'\\', text) {
        let length = line_break(&text[at..]);
        let before = &text[copied.min(at)..at];
        let is_behind_line = before.len() >= MIN_BASE64_LEN
            && before[before.len() - MIN_BASE64_LEN..].iter().all(|byte| is_base64(*byte));
        if at < copied || length == 0 || !is_behind_line {
            continue;
        }
        let next = at + length;
        let end = next + text[next..].iter().take_while(|byte| is_base64(**byte)).count();
        let ends_line =
            || line_break(&text[end..]) > 0 || text.get(end).is_none_or(|byte| b"\"'\\".contains(byte));
        if end > next && ends_line() {
            joined.extend_from_slice(before);
            copied = next;
        }
    }
    (!joined.is_empty()).then(|| {
        joined.extend_from_slice(&text[copied..]);
        joined
    })
}

/// Returns the length of a line break with the indentation after it; 0 if there is none.
fn line_break(text: &[u8]) -> usize {
    let breaks: [&[u8]; 4] = [b"\r\n", b"\n", b"\\r\\n", b"\\n"];
    let length = breaks.into_iter().find(|one| text.starts_with(one)).map_or(0, <[u8]>::len);
    if length == 0 { 0 } else { skip_blanks(text, length) }
}

/// Returns the end of a YAML mapping in flow style.
fn flow_end(text: &[u8], start: usize) -> usize {
    let mut open = 0_usize;
    for (at, byte) in text.iter().enumerate().skip(start) {
        match byte {
            b'{' => open += 1,
            b'}' if open <= 1 => return at + 1,
            b'}' => open -= 1,
            _ => {}
        }
    }
    text.len()
}

fn flow_has_secret(flow: &[u8]) -> bool {
    flow.split(|byte| b"{},\n".contains(byte))
        .filter_map(key_and_value)
        .any(|(key, value)| is_secret(key, value))
}

/// Reads a TOML table up to the next one. Returns whether it has a password, and its length.
fn read_table(table: &[u8]) -> (bool, usize) {
    let (mut length, mut has_secret) = (0, false);
    for (number, line) in table.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let content = line.trim_ascii();
        if number > 0 && content.starts_with(b"[") {
            break;
        }
        length += line.len();
        if let Some(at) = memchr::memchr(b'=', content) {
            has_secret |= number > 0 && is_secret(unquoted(&content[..at]), unquoted(&content[at + 1..]));
        }
    }
    (has_secret, length)
}

/// Reads the servers below `auths` in a YAML block, which ends before the next line with the indentation of `auths`. Returns whether the
/// function returned true, and the length of the block.
fn read_block(block: &[u8], indent: usize, found: &mut dyn FnMut(&Server<'_>) -> bool) -> (bool, usize) {
    let mut server: Option<(usize, Server<'_>)> = None;
    let mut length = 0;
    // The first line is the rest of the line with `auths`.
    for (number, line) in block.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let content = line.trim_ascii();
        let own = line.iter().take_while(|byte| **byte == b' ').count();
        if number > 0 && !content.is_empty() && !content.starts_with(b"#") {
            if own <= indent {
                break;
            }
            if server.as_ref().is_none_or(|(of_server, _)| own <= *of_server) {
                if server.take().is_some_and(|(_, server)| found(&server)) {
                    return (true, length);
                }
                server = server_of_line(content).map(|server| (own, server));
            } else if let Some((_, server)) = &mut server
                && let Some((key, value)) = key_and_value(content)
            {
                // A merged value may be a password.
                server.add(if key == b"<<" { b"password" } else { key }, value);
            }
        }
        length += line.len();
    }
    (server.is_some_and(|(_, server)| found(&server)), length)
}

/// Returns the server that a line of YAML starts, with the content of that line.
fn server_of_line(line: &[u8]) -> Option<Server<'_>> {
    // An address contains colons: the key ends at the last one before a space, a brace, or the end.
    let is_end = |at: usize| line[at] == b':' && line.get(at + 1).is_none_or(u8::is_ascii_whitespace);
    let end = (0..line.len()).find(|at| is_end(*at))?;
    let mut server = Server::named(unquoted(&line[..end]))?;
    let alias = line[end + 1..].trim_ascii();
    if alias.starts_with(b"*") {
        server.add(b"password", alias);
    }
    for (key, value) in line[end + 1..].split(|byte| b"{},".contains(byte)).filter_map(key_and_value) {
        server.add(key, value);
    }
    Some(server)
}

fn key_and_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', text)?;
    Some((unquoted(&text[..at]), unquoted(&text[at + 1..])))
}

fn unquoted(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    let inner =
        [b'"', b'\''].into_iter().find_map(|quote| text.strip_prefix(&[quote])?.strip_suffix(&[quote]));
    inner.unwrap_or(text)
}

fn is_secret(key: &[u8], value: &[u8]) -> bool {
    docker_config::is_secret_key(key) && !matches!(value, b"" | b"null" | b"~")
}

#[cfg(test)]
mod tests {
    use base64::engine::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const CONFIG: &str = r#"{"auths":{"ghcr.io":{"auth":"Ym90Omxvb3Q="}}}"#;

    fn logins(text: &str) -> Vec<(Option<String>, Option<String>)> {
        let mut logins = Vec::new();
        add_logins(text.as_bytes(), false, 100, &mut logins);
        assert!(!format!("{logins:?}").contains("loot"), "{text}");
        logins.into_iter().map(|login| (login.host, login.username)).collect()
    }

    #[test]
    fn finds_configurations_in_other_texts() {
        let escaped = CONFIG.replace('"', "\\\"");
        let encoded = STANDARD.encode(CONFIG);
        let indented =
            STANDARD.encode("{\n  \"auths\": {\n    \"ghcr.io\": {\n \"auth\":\"Ym90Omxvb3Q=\"}}}");
        let legacy = STANDARD.encode(r#"{"ghcr.io":{"username":"bot","password":"loot"}}"#);
        for text in [
            CONFIG.to_owned(),
            format!(r#"{{"registry":{{"a":1,"docker":{CONFIG}}}}}"#),
            format!(r#"{{"settings":{{"credsStore":"x",{}}}}}"#, &CONFIG[1..CONFIG.len() - 1]),
            format!("CI=1\nexport DOCKER_AUTH_CONFIG={CONFIG}\nX=2\n"),
            format!("DOCKER_AUTH_CONFIG='{CONFIG}'\n"),
            format!("DOCKER_AUTH_CONFIG=\"{escaped}\"\n"),
            format!("[[runners]]\n  environment = [\"A=1\", \"DOCKER_AUTH_CONFIG={escaped}\"]\n"),
            format!(r#"{{"DOCKER_AUTH_CONFIG":"{escaped}"}}"#),
            format!(r#"{{"a":"{{\"b\":\"{}\"}}"}}"#, escaped.replace('\\', "\\\\").replace("\\\\\"", "\\\\\\\"")),
            format!("DOCKER_CONFIG={encoded}\n"),
            format!("imagePullSecret: {encoded}\n"),
            format!("a: {indented}"),
            format!("kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: \"{encoded}\"\n"),
            format!("data:\n  .dockerconfigjson: |\n    {encoded}\n"),
            format!("data:\n  .dockercfg: {legacy}\n"),
            format!(r#"{{"manifest":"kind: Secret\ndata:\n  .dockerconfigjson: \"{encoded}\"\ntype: kubernetes.io/dockerconfigjson\n"}}"#),
            "auths:\n  ghcr.io:\n    auth: Ym90Omxvb3Q=\n".to_owned(),
            "a: 1\n\"auths\": # logins\n\n  # one\n  'https://ghcr.io/v2/':\n    username: bot\n    password: \"loot\"\nb: 2\n".to_owned(),
            "x:\n  - auths:\n      ghcr.io:\n        username: bot\n        password: loot\n".to_owned(),
            "auths:\n  ghcr.io: {username: bot, password: loot}\n".to_owned(),
            format!("echo {} | base64 -d", STANDARD.encode(format!(r#"{{"credsStore":"x",{}"#, &CONFIG[1..]))),
            format!("data:application/json;base64,{}", STANDARD.encode(format!(r#"{{"credStore":"x",{}"#, &CONFIG[1..]))),
            format!("x=a{}", STANDARD.encode(format!(r#"{{"credStores":"x",{}"#, &CONFIG[1..]))),
            format!("data:\n  .dockerconfigjson: |\n    {}\n    {}\n  other: x\n", &encoded[..20], &encoded[20..]),
            format!(r#"{{"a":"x {}\n{}\n"}}"#, &encoded[..40], &encoded[40..]),
            {
                let other = STANDARD.encode(format!(r#"{{"credsStore":"x",{}"#, &CONFIG[1..]));
                let lines: Vec<String> = other.as_bytes().chunks(20).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
                format!("a: |\n    {}\nb: c\n", lines.join("\n    "))
            },
            format!("echo {} | xxd -r -p\n", CONFIG.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()),
            format!("<a value='{}'/>", CONFIG.replace('"', "&quot;")),
            format!("curl -d {}", CONFIG.replace('"', "%22").replace('{', "%7B").replace('}', "%7D")),
            r#"{"Auths":{"ghcr.io":{"Username":"bot","Password":"loot"}},"a":{"auths":{}}}"#.to_owned(),
        ] {
            assert!(has_login(text.as_bytes()), "{text}");
            assert_eq!(logins(&text), [(Some("ghcr.io".to_owned()), Some("bot".to_owned()))], "{text}");
        }
        for text in [
            "auths: {ghcr.io: {auth: Ym90Omxvb3Q=}}",
            "[auths.\"ghcr.io\"]\nauth = \"Ym90Omxvb3Q=\"\n",
            "x: &x\n  username: bot\n  password: loot\nauths:\n  ghcr.io: *x\n",
            "x: &x\n  ghcr.io: {auth: Ym90Omxvb3Q=}\nauths: *x\n",
            "auths:\n  ghcr.io:\n    <<: *x\n",
        ] {
            assert!(has_login(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn tokens_in_the_place_of_user_names_are_not_shown() {
        let redacted = [(Some("ghcr.io".to_owned()), Some("<redacted>".to_owned()))];
        for login in [
            "username: loot\n    password: x-oauth-basic".to_owned(),
            format!("auth: {}", STANDARD.encode("loot:")),
            "username: ghp_0123456789ABCDEFabcdef0123456789ABCD\n    password: loot".to_owned(),
        ] {
            assert_eq!(logins(&format!("auths:\n  ghcr.io:\n    {login}\n")), redacted, "{login}");
        }
    }

    #[test]
    fn other_texts_have_no_login() {
        for text in [
            "auths: 1",
            "auths:\n  ghcr.io:\n    email: a@b\nauth: loot\n",
            "auths:\n  ghcr.io:\n    auth: \"\"\n",
            "oauths:\n  ghcr.io:\n    auth: loot\n",
            "see auths:\n  ghcr.io:\n    auth: loot\n",
            "auths:\n  basic:\n    password: loot\n",
            "the auths of dockerconfigjson: see eyJhdXRocyI6 there",
            r#"{"a":{"auths":{"ghcr.io":{}}}}"#,
            r#"{"auths":[1]}"#,
            "password: loot",
            "[auths.\"ghcr.io\"]\nemail = \"a@b\"\n[other]\nauth = \"loot\"\n",
            "auths:\n  ghcr.io: x\n",
            "ImF1dGhzI",
            "22617574687322",
            "auths&quot;",
            "auths%22",
            "auths:",
            "auths\\",
            "auths:\\",
            "auths: {",
        ] {
            assert!(!has_login(text.as_bytes()), "{text}");
            assert!(logins(text).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(parts in vec(select(&[
            "auths", "\"auths\"", "Auths:", "{", "}", ":", "\\", "\"", "'", "\n", "  ", "- ", "ghcr.io:", "auth: x", "#", ".dockercfg",
            "dockerconfigjson: ", "eyJhdXRocyI6", "eyJnaGNyLmlv", "|", "é", "password", ",", "[auths.", "=", "*x", "<<: ", "%22", "&quot;",
            "22617574687322", "ImF1dGhzI", "iYXV0aHMi", "\\n",
        ][..]), 0..24)) {
            let text = parts.concat();
            has_login(text.as_bytes());
            logins(&text);
        }
    }

    #[test]
    fn a_text_with_very_many_places_counts_as_a_login() {
        let decoys = "auths: 1\n".repeat(MAX_PLACES + 1);
        assert!(has_login(format!("{decoys}{CONFIG}").as_bytes()));
    }
}
