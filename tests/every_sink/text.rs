//! Parses the formats that are not JSON.

use std::collections::BTreeSet;

/// Splits at a byte that has no backslash before it; `\\` is a backslash.
fn split(text: &str, at: char, max: usize) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (index, letter) in text.char_indices() {
        if letter == at && !is_escaped && parts.len() + 1 < max {
            parts.push(&text[start..index]);
            start = index + letter.len_utf8();
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// Parses CEF and returns its `externalId`; each key occurs once and is one of those that pullwatch writes.
pub fn cef_id(text: &str) -> Result<String, String> {
    let parts = split(text.strip_prefix("CEF:0|").ok_or("no CEF")?, '|', 7);
    let ["pullwatch", "pullwatch", _, _, _, severity, extension] = parts[..] else {
        return Err(format!("{} header fields", parts.len()));
    };
    severity.parse::<u8>().map_err(|error| error.to_string())?;
    let known = [
        "rt",
        "externalId",
        "cat",
        "suser",
        "act",
        "requestClientApplication",
        "src",
        "c6a2",
        "c6a2Label",
        "duser",
        "dvchost",
        "outcome",
        "request",
        "sproc",
        "pullwatchTarget",
        "cs1",
        "cs1Label",
        "cs2",
        "cs2Label",
        "cs3",
        "cs3Label",
        "cs4",
        "cs4Label",
        "cs5",
        "cs5Label",
        "cs6",
        "cs6Label",
        "cn1",
        "cn1Label",
        "msg",
    ];
    let mut keys = BTreeSet::new();
    let mut id = None;
    // What precedes each `=` ends with a key; what follows it starts with the key's value.
    let fields = split(extension, '=', usize::MAX);
    for pair in fields.windows(2) {
        let key = pair[0].rsplit(' ').next().unwrap_or_default();
        if !known.contains(&key) || !keys.insert(key) {
            return Err(format!("key `{key}`"));
        }
        if key == "externalId" {
            id = pair[1].split(' ').next().map(str::to_owned);
        }
    }
    id.ok_or_else(|| "no externalId".to_owned())
}

/// Parses a message of RFC 5424: the id in its structured data, and its text.
pub fn syslog(message: &str) -> Result<(String, &str), String> {
    let rest = message.strip_prefix('<').and_then(|rest| rest.split_once(">1 ")).ok_or("no header")?.1;
    let (header, data) = rest.split_once(" [pullwatch@32473 ").ok_or("no structured data")?;
    // Time, host, program, process, kind of message.
    if header.split(' ').count() != 5 || header.split(' ').any(str::is_empty) {
        return Err(format!("header {header}"));
    }
    let parts = split(data, ']', 2);
    let [data, text] = parts[..] else { return Err("no end of the structured data".to_owned()) };
    // Names and values alternate.
    let pieces = split(data, '"', usize::MAX);
    let names: Vec<&str> = pieces.iter().step_by(2).map(|name| name.trim_end_matches('=').trim()).collect();
    if names != ["id", "rule", "priority", "actor", "target", ""] {
        return Err(format!("names {names:?}"));
    }
    Ok((pieces[1].to_owned(), text.strip_prefix(' ').ok_or("no text")?))
}
