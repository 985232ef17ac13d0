//! Docker configurations in generated encodings, as the value of a secret or of a config map: the shipped rules report that it is read.
//!
//! Used by `tests/encodings.rs` with random bytes, and by the fuzz target `encodings`.

use std::io::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use pullwatch::Priority;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules;
use pullwatch::internals::shipped;
use serde_json::json;

/// The password of every configuration, which no alert may show.
const PASSWORD: &str = "MARK4TJ7PASSWORD";

/// Maximum number of encodings around a configuration. The API adds one of its own to the values of secrets.
const MAX_LAYERS: usize = 4;

/// That of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Text before a configuration.
const PREFIXES: [&str; 10] = [
    "",
    "# login\n",
    "A=1\nexport DOCKER_AUTH_CONFIG=",
    "auths: {\n",
    "auths:\n  x: 1\n",
    "the auths of \"dockerconfigjson\": see ",
    "eyJhdXRocyI6 ",
    "ImF1dGhzI 22617574687322\n",
    "{\"auths\":{}}\n",
    "docker login -u $USER\n",
];

fn configuration(which: usize) -> String {
    let auth = STANDARD.encode(format!("bot:{PASSWORD}"));
    match which % 5 {
        0 => json!({"auths": {"ghcr.io": {"auth": auth}}}).to_string(),
        1 => json!({"credsStore": "x", "auths": {"quay.io": {"username": "bot", "password": PASSWORD}}})
            .to_string(),
        2 => format!("{:#}", json!({"auths": {"ghcr.io": {"auth": auth}}})),
        3 => format!("auths:\n  ghcr.io:\n    username: bot\n    password: {PASSWORD}\n"),
        _ => format!("{{\"\\u0061uths\": {{\"ghcr.io\": {{\"auth\": \"{auth}\"}}}}}}"),
    }
}

fn is_zipped(value: &[u8]) -> bool {
    value.starts_with(b"\x1f\x8b") || value.starts_with(b"\x78\x9c")
}

fn hex(value: &[u8], mark: &str) -> Vec<u8> {
    value.iter().flat_map(|byte| format!("{mark}{byte:02x}").into_bytes()).collect()
}

fn in_lines(text: &str, width: usize) -> Vec<u8> {
    text.as_bytes().chunks(width).collect::<Vec<_>>().join(&b"\n"[..])
}

fn base32(value: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |bits: &[u8]| {
        let value = (0..5).fold(0, |value, bit| value << 1 | bits.get(bit).copied().unwrap_or_default());
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)]
    };
    bits.chunks(5).map(digit).collect()
}

/// Returns what a value was compressed to, unless it became so short that it is not read to its end.
fn bounded(value: &[u8], compressed: Vec<u8>) -> Option<Vec<u8>> {
    (value.len() <= 12 * compressed.len()).then_some(compressed)
}

/// Encodes a value once more; none if that would not be an encoding of it.
fn encoded(value: &[u8], how: u8, was_zipped: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).ok();
    Some(match how % 17 {
        0 => STANDARD.encode(value).into_bytes(),
        1 => URL_SAFE_NO_PAD.encode(value).into_bytes(),
        2 => URL_SAFE.encode(value).into_bytes(),
        3 => in_lines(&STANDARD.encode(value), 76),
        4 => in_lines(&STANDARD_NO_PAD.encode(value), 20 + usize::from(how / 17)),
        5 => hex(value, ""),
        6 => hex(value, "").to_ascii_uppercase(),
        7 => base32(value),
        8 => base32(value).to_ascii_lowercase(),
        9 if !was_zipped => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(value).ok()?;
            bounded(value, encoder.finish().ok()?)?
        }
        10 if !was_zipped => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(value).ok()?;
            bounded(value, encoder.finish().ok()?)?
        }
        // Zeros in a text come from UTF-16 alone, which nobody applies twice.
        11 | 12 if value.contains(&0) => return None,
        11 => text?.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        12 => text?.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        13 => serde_json::to_vec(text?).ok()?,
        14 => hex(value, "%"),
        15 => hex(value, "\\x"),
        // A byte order mark stands before a text, and once.
        16 if value.starts_with(BYTE_ORDER_MARK) => return None,
        16 => [BYTE_ORDER_MARK, text?.as_bytes()].concat(),
        _ => return None,
    })
}

fn detector() -> &'static Detector {
    static DETECTOR: OnceLock<Detector> = OnceLock::new();
    DETECTOR.get_or_init(|| {
        let loaded = rules::load(&shipped::files(), &rules::Options::default());
        assert!(!loaded.has_errors());
        Detector::new(&loaded.rules, Options::default())
    })
}

/// Whether an alert about something else than the audit log itself is raised when an object with this value is read.
fn is_reported(value: &[u8], is_secret: bool) -> bool {
    let (resource, kind) = if is_secret { ("secrets", "Secret") } else { ("configmaps", "ConfigMap") };
    let data = match std::str::from_utf8(value) {
        Ok(text) if !is_secret => json!({"data": {"x": text}}),
        _ if is_secret => json!({"data": {"x": STANDARD.encode(value)}, "type": "Opaque"}),
        _ => json!({"binaryData": {"x": STANDARD.encode(value)}}),
    };
    let mut object = json!({"kind": kind, "metadata": {"name": "x", "namespace": "p"}});
    for (key, member) in data.as_object().into_iter().flatten() {
        object[key] = member.clone();
    }
    let event = json!({
        "kind": "Event", "level": "RequestResponse", "auditID": "a", "stage": "ResponseComplete", "requestURI": "/x", "verb": "get",
        "user": {"username": "mallory", "groups": ["system:authenticated"]}, "sourceIPs": ["10.0.0.66"], "userAgent": "client/1.0",
        "objectRef": {"resource": resource, "namespace": "p", "name": "x", "apiVersion": "v1"}, "responseStatus": {"code": 200},
        "responseObject": object,
    });
    let mut is_reported = false;
    let mut json = Vec::new();
    detector().session().chunk(event.to_string().as_bytes(), &mut |alert| {
        alert.write_json(&mut json);
        is_reported |=
            alert.priority() <= Priority::Notice && !alert.rule_name().to_lowercase().contains("audit log");
    });
    assert!(!String::from_utf8_lossy(&json).contains(PASSWORD));
    is_reported
}

/// Reads any bytes as values, and a configuration in encodings that the bytes choose. Returns the value if its read is not reported.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let Some((&[which, prefix, is_secret, layers], rest)) = bytes.split_first_chunk() else { return Ok(()) };
    let is_secret = is_secret % 2 == 0;
    is_reported(rest, is_secret);
    let which = usize::from(which);
    // What is read as one document has nothing before it.
    let prefix = if which % 5 == 4 { "" } else { PREFIXES[usize::from(prefix) % PREFIXES.len()] };
    let mut value = format!("{prefix}{}", configuration(which)).into_bytes();
    if which % 5 == 3 && !prefix.is_empty() {
        // A block of YAML starts a line.
        value = format!("{prefix}\n{}", configuration(which)).into_bytes();
    }
    let mut was_zipped = false;
    for how in rest.iter().take(usize::from(layers) % (MAX_LAYERS + 1)) {
        if let Some(next) = encoded(&value, *how, was_zipped) {
            value = next;
            was_zipped |= is_zipped(&value);
        }
    }
    if is_reported(&value, is_secret) { Ok(()) } else { Err(String::from_utf8_lossy(&value).into_owned()) }
}
