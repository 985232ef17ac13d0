//! Redaction of values from events.
//!
//! Takes a value and its [`Place`] in an event; returns text that may leave pullwatch. At level RequestResponse an event contains data of
//! Secrets, tokens, and passwords in environment variables, command lines and custom resources. Conditions may read all of it; no output
//! may contain it, so every value that leaves pullwatch must pass a [`Redactor`].
//!
//! The default is to redact. A string is shown if the allowlist ([`schema`]) contains its place and its text has the expected content
//! ([`check`]), or if the rule shows its path ([`ShowList`]). Any other string becomes its type, its length and a keyed hash
//! ([`RedactionKey`]), so that equal values can be recognized. Data of Secrets and tokens cannot be shown at all.
//!
//! Redacting too much is an inconvenience; redacting too little is a leak.

mod check;
mod schema;
mod show;
mod uri;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

use super::json::{Pointer, Raw, Type};
use super::literals::Literals;
use crate::text::escape::{MAX_SHOWN_LEN, escape_json};
pub(crate) use check::{is_host, is_user as is_user_name};
use schema::Node;
pub use show::ShowList;

/// Replaces a redacted value of which not even the length is shown.
pub const REDACTED: &str = "<redacted>";

/// Start and middle of the placeholder for a redacted string: `<redacted string of 12 bytes, hash 0123456789ab>`.
const STRING_START: &str = "<redacted string of ";
const STRING_HASH: &str = " bytes, hash ";

/// Length of a hash, in hexadecimal digits.
const HASH_LEN: usize = 12;

/// Replaces a value that is nested deeper than [`MAX_DEPTH`].
const TOO_DEEP: &str = "\"<nested too deep>\"";

/// Maximum nesting of a value that is shown. Kubernetes objects are far below it. It bounds the recursion.
const MAX_DEPTH: usize = 96;

/// Ends a text that was truncated to [`MAX_SHOWN_LEN`].
const ELLIPSIS: &str = "…";

/// Maximum length, in bytes, of a number of an unknown member that is shown: counts and codes are shorter, PINs and numeric passwords are
/// longer.
const MAX_UNKNOWN_NUMBER_LEN: usize = 3;

/// Keys that contain secrets, in lower case and without punctuation. A rule cannot show values below them.
const SECRET_KEYS: [&str; 23] = [
    "data",
    "stringdata",
    "binarydata",
    "kubectlkubernetesiolastappliedconfiguration",
    "token",
    "tokens",
    "tokensecretvalue",
    "openshiftiotokensecretvalue",
    "bearertoken",
    "accesstoken",
    "refreshtoken",
    "identitytoken",
    "registrytoken",
    "idtoken",
    "password",
    "passphrase",
    "clientsecret",
    "secretkey",
    "secretaccesskey",
    "awssecretaccesskey",
    "privatekey",
    "apikey",
    "dockerconfigjson",
];

/// Parts of keys whose numbers and booleans are redacted too, in lower case and without punctuation.
const SUSPICIOUS_KEY_PARTS: [&str; 9] =
    ["pass", "secret", "token", "credential", "apikey", "accesskey", "privatekey", "pin", "auth"];

/// Key of the hashes of redacted values.
///
/// The daemon keeps a random one per installation, so that testing a guess of a secret requires access to its state directory. The default
/// is a fixed, public key, so that the output of `scan` is a function of its input; anyone who reads that output can test guesses.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    /// Creates a key from these bytes, which must be random and secret.
    pub fn new(bytes: [u8; 32]) -> Self {
        RedactionKey(bytes)
    }

    /// Returns a truncated hash of a text, in hexadecimal digits. The digest is truncated, which prevents length extension.
    fn hash(&self, text: &[u8]) -> String {
        let digest = Sha256::new_with_prefix(self.0).chain_update(text).finalize();
        let mut hash = Vec::with_capacity(HASH_LEN);
        crate::detection::alert::push_hex(&digest[..HASH_LEN / 2], &mut hash);
        String::from_utf8(hash).unwrap_or_default()
    }
}

impl Default for RedactionKey {
    fn default() -> Self {
        RedactionKey(*b"pullwatch: public redaction key.")
    }
}

impl fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactionKey")
    }
}

/// Decides what an output may contain.
#[derive(Clone, Copy, Debug)]
pub struct Redactor<'r> {
    key: &'r RedactionKey,
    show: &'r ShowList,
}

/// How much a key reveals about the values below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Secrecy {
    /// Nothing.
    None,
    /// Numbers and booleans are redacted too.
    Suspicious,
    /// Nothing is shown, even if the rule shows the path.
    Secret,
}

/// The place of a value in an event, which decides how it is redacted.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    node: &'static Node,
    secrecy: Secrecy,
    /// Bits of the [`ShowList`] paths that match up to this place.
    candidates: u32,
    /// Number of members and elements on the way to this place.
    depth: u8,
    /// Whether a path of the [`ShowList`] ends here or above.
    is_shown: bool,
}

impl Place {
    /// A place in the head of an event, where nothing is redacted.
    pub const PLAIN: Place = Place::at(&schema::PLAIN);

    /// A place in the head of an event whose content a client chooses, so tokens are redacted.
    pub const HEAD: Place = Place::at(&schema::HEAD);

    /// The place of a user name.
    pub const USER: Place = Place::at(&schema::USER);

    /// The place of a request URI.
    pub const URI: Place = Place::at(&schema::URI);

    const fn at(node: &'static Node) -> Self {
        Place { node, secrecy: Secrecy::None, candidates: 0, depth: 0, is_shown: false }
    }

    /// Whether values at this place are shown without redaction.
    pub fn is_plain(self) -> bool {
        std::ptr::eq(self.node, &raw const schema::PLAIN)
    }

    /// Whether members at this place belong to the event, not to an object that a client sent.
    fn is_event(self) -> bool {
        std::ptr::eq(self.node, &raw const schema::EVENT)
    }

    fn is_body(self) -> bool {
        std::ptr::eq(self.node, &raw const schema::BODY)
    }
}

impl<'r> Redactor<'r> {
    /// Redacts with the key, except for what the list shows.
    pub fn new(key: &'r RedactionKey, show: &'r ShowList) -> Self {
        Redactor { key, show }
    }

    /// Returns the place of the event itself.
    #[must_use]
    pub fn event(self) -> Place {
        Place { candidates: self.show.all_candidates(), ..Place::at(&schema::EVENT) }
    }

    /// Returns the place of the member `key` of `parent`, which is at `place`.
    #[must_use]
    pub fn member(self, place: Place, key: &[u8], parent: Raw<'_>) -> Place {
        self.member_of(place, key, &Parent::new(parent))
    }

    fn member_of(self, place: Place, key: &[u8], parent: &Parent<'_>) -> Place {
        if place.is_plain() {
            return place;
        }
        let (node, secrecy) =
            if std::ptr::eq(place.node, &raw const schema::PATCH_OPERATION) && key == b"value" {
                parent.patched()
            } else {
                match place.node.member(key) {
                    (node, true) => (node, Secrecy::None),
                    (node, false) if place.is_event() => (node, Secrecy::None),
                    (node, false) => match secrecy_of(key, parent) {
                        // Clients choose the keys of labels and similar maps freely.
                        Secrecy::Suspicious if place.node.other_members.is_some() => (node, Secrecy::None),
                        secrecy => (node, secrecy),
                    },
                }
            };
        self.descend(place, key, node, place.secrecy.max(secrecy))
    }

    /// Returns the place of the element `index` of an array at `place`.
    #[must_use]
    pub fn item(self, place: Place, index: usize, item: Raw<'_>) -> Place {
        if place.is_plain() {
            return place;
        }
        // An array in place of an object is a JSON patch.
        let is_operation = place.is_body() && place.depth == 1 && item.kind() == Type::Object;
        let node = if is_operation { &schema::PATCH_OPERATION } else { place.node };
        let mut number = itoa::Buffer::new();
        self.descend(place, number.format(index).as_bytes(), node, place.secrecy)
    }

    /// Returns the place of the member or element that a token of a JSON pointer refers to.
    #[must_use]
    pub fn step(self, place: Place, token: &str, parent: Raw<'_>, child: Raw<'_>) -> Place {
        match parent.kind() {
            Type::Array => self.item(place, token.parse().unwrap_or(usize::MAX), child),
            _ => self.member(place, token.as_bytes(), parent),
        }
    }

    fn descend(self, place: Place, token: &[u8], node: &'static Node, secrecy: Secrecy) -> Place {
        let depth = place.depth.saturating_add(1);
        let (candidates, ends) = self.show.advance(place.candidates, usize::from(place.depth), token);
        Place { node, secrecy, candidates, depth, is_shown: place.is_shown || ends }
    }

    /// Returns the redacted text of a value: the content of a string, compact JSON in source order for other types. At most
    /// [`MAX_SHOWN_LEN`] bytes and an ellipsis.
    pub fn show(self, place: Place, value: Raw<'_>) -> Cow<'_, [u8]> {
        match value.kind() {
            Type::String | Type::Scalar => truncate(self.scalar(place, value)),
            Type::Object | Type::Array => {
                let mut out = Vec::new();
                self.write(place, value, Shape { limit: MAX_SHOWN_LEN, ..Shape::default() }, &mut out);
                truncate(Cow::Owned(out))
            }
        }
    }

    /// Returns the redacted value as compact JSON. What exceeds about `limit` bytes is left out, element by element: a last element
    /// `"...[12 more]"`, or a last member `"..."`, says how many.
    pub fn json(self, place: Place, value: Raw<'_>, limit: usize) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(place, value, Shape { limit, escapes: true, ..Shape::default() }, &mut out);
        out
    }

    /// Like [`Redactor::show`], but as JSON that is indented by two spaces.
    pub fn show_indented(self, place: Place, value: Raw<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(
            place,
            value,
            Shape { indent: Some(0), limit: MAX_SHOWN_LEN, ..Shape::default() },
            &mut out,
        );
        truncate(Cow::Owned(out)).into_owned()
    }

    /// Returns the redacted value of a query parameter. Name and value are percent-decoded.
    pub fn parameter<'v>(self, name: &[u8], value: Cow<'v, [u8]>) -> Cow<'v, [u8]> {
        truncate(uri::parameter(self, name, value))
    }

    /// Returns a name that was extracted from an event, or its placeholder if it is not a name.
    pub fn name(self, text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        if check::is_free_name(&text) { text } else { self.placeholder(&text).into_bytes().into() }
    }

    /// Returns the placeholder for a redacted string.
    fn placeholder(self, text: &[u8]) -> String {
        format!("{STRING_START}{}{STRING_HASH}{}>", text.len(), self.key.hash(text))
    }

    /// Returns the redacted text of a string, number, boolean or null.
    fn scalar(self, place: Place, value: Raw<'_>) -> Cow<'_, [u8]> {
        let is_string = value.kind() == Type::String;
        let text = if is_string { value.string().unwrap_or_default() } else { value.text() };
        if place.is_plain() {
            return text;
        }
        if place.secrecy < Secrecy::Secret && place.is_shown && !check::looks_like_token(&text) {
            return text;
        }
        if !is_string {
            return match &*text {
                b"null" => text,
                b"true" | b"false" if place.secrecy == Secrecy::None => text,
                _ if place.secrecy == Secrecy::None && is_harmless_number(place, &text) => text,
                _ => Cow::Borrowed(REDACTED.as_bytes()),
            };
        }
        if place.secrecy == Secrecy::None {
            if place.node.allowed == check::AllowedStrings::Uri {
                return uri::uri(self, text);
            }
            if place.node.allowed.allows(&text) {
                return text;
            }
        }
        if is_placeholder(&text) { text } else { self.placeholder(&text).into_bytes().into() }
    }

    /// Appends the redacted value as JSON. Recursion ends at [`MAX_DEPTH`].
    fn write(self, place: Place, value: Raw<'_>, shape: Shape, out: &mut Vec<u8>) {
        let Shape { depth, indent, limit, escapes } = shape;
        let (open, close) = match value.kind() {
            Type::String | Type::Scalar => {
                self.write_scalar(place, value, escapes, out);
                return;
            }
            Type::Object | Type::Array if depth == MAX_DEPTH => {
                out.extend_from_slice(TOO_DEEP.as_bytes());
                return;
            }
            Type::Object => (b'{', b'}'),
            Type::Array => (b'[', b']'),
        };
        let inner = indent.map(|indent| indent + 2);
        let below = Shape { depth: depth + 1, indent: inner, ..shape };
        let mut empty = true;
        let mut separate = |out: &mut Vec<u8>| {
            if !std::mem::take(&mut empty) {
                out.push(b',');
            }
            new_line(inner, out);
        };
        out.push(open);
        if open == b'{' {
            let parent = Parent::new(value);
            let mut members = value.members().map_while(Result::ok);
            while let Some((key, member)) = members.next() {
                separate(out);
                if out.len() > limit {
                    let rest = members.count() + 1;
                    out.extend_from_slice(format!("\"...\":\"[{rest} more]\"").as_bytes());
                    break;
                }
                let key = key.text();
                out.push(b'"');
                escape_json(&self.key(place, &key), out);
                out.extend_from_slice(if inner.is_some() { b"\": " } else { b"\":" });
                self.write(self.member_of(place, &key, &parent), member, below, out);
            }
        } else {
            let mut items = value.items().map_while(Result::ok).enumerate();
            while let Some((index, item)) = items.next() {
                separate(out);
                if out.len() > limit {
                    let rest = items.count() + 1;
                    out.extend_from_slice(format!("\"...[{rest} more]\"").as_bytes());
                    break;
                }
                self.write(self.item(place, index, item), item, below, out);
            }
        }
        if !empty {
            new_line(indent, out);
        }
        out.push(close);
    }

    fn write_scalar(self, place: Place, value: Raw<'_>, escapes: bool, out: &mut Vec<u8>) {
        match (value.kind(), self.scalar(place, value)) {
            // Keeps the spelling of the source.
            (Type::Scalar, Cow::Borrowed(text)) if text == value.bytes() => out.extend_from_slice(text),
            (Type::String, text) if !escapes && value.string().is_some_and(|own| own == text) => {
                out.extend_from_slice(value.bytes());
            }
            (_, text) => {
                out.push(b'"');
                escape_json(&text, out);
                out.push(b'"');
            }
        }
    }

    /// Returns the redacted key of an object.
    pub fn key(self, place: Place, key: &[u8]) -> Cow<'_, [u8]> {
        if place.is_plain() || check::is_key(key) || is_placeholder(key) {
            Cow::Borrowed(key)
        } else {
            Cow::Owned(self.placeholder(key).into_bytes())
        }
    }
}

/// An object, with the properties that decide how its members are redacted. They are computed once per object: an object can
/// repeat a key a million times.
struct Parent<'v> {
    value: Raw<'v>,
    patched: OnceCell<(&'static Node, Secrecy)>,
    is_config_map: OnceCell<bool>,
}

impl<'v> Parent<'v> {
    fn new(value: Raw<'v>) -> Self {
        Parent { value, patched: OnceCell::new(), is_config_map: OnceCell::new() }
    }

    fn patched(&self) -> (&'static Node, Secrecy) {
        *self.patched.get_or_init(|| patched(self.value))
    }

    fn is_config_map(&self) -> bool {
        *self.is_config_map.get_or_init(|| is_config_map(self.value))
    }
}

/// Finds [`SUSPICIOUS_KEY_PARTS`] in one pass over a key. Compiling constants does not fail; without a searcher, every key is suspicious.
static SUSPICIOUS_PARTS: LazyLock<Option<Literals>> = LazyLock::new(|| Literals::new(&SUSPICIOUS_KEY_PARTS));

/// How much a key of an object reveals about its value.
fn secrecy_of(key: &[u8], parent: &Parent<'_>) -> Secrecy {
    let key: Vec<u8> =
        key.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    if matches!(&*key, b"data" | b"binarydata") && parent.is_config_map() {
        return Secrecy::Suspicious;
    }
    if SECRET_KEYS.iter().any(|secret| secret.as_bytes() == key) {
        return Secrecy::Secret;
    }
    let is_suspicious =
        key == b"env" || SUSPICIOUS_PARTS.as_ref().is_none_or(|parts| parts.find(&key, 0).is_some());
    if is_suspicious { Secrecy::Suspicious } else { Secrecy::None }
}

/// Whether an object's type members say that it is a ConfigMap, and nothing else.
fn is_config_map(object: Raw<'_>) -> bool {
    let mut kinds = object.members().map_while(Result::ok).filter(|(key, _)| key.is("kind")).peekable();
    kinds.peek().is_some() && kinds.all(|(_, kind)| kind.string().is_some_and(|kind| *kind == *b"ConfigMap"))
}

/// Returns the place that an operation of a JSON patch writes its `value` to. The object is not known, so data is treated as that of a
/// Secret.
fn patched(operation: Raw<'_>) -> (&'static Node, Secrecy) {
    let hidden = (&schema::HIDDEN, Secrecy::Secret);
    let mut paths = operation.members().map_while(Result::ok).filter(|(key, _)| key.is("path"));
    let (Some((_, path)), None) = (paths.next(), paths.next()) else { return hidden };
    let Some(path) = path.string().and_then(|path| String::from_utf8(path.into_owned()).ok()) else {
        return hidden;
    };
    let mut place = (&schema::BODY, Secrecy::None);
    for token in Pointer::new(&path).tokens() {
        let is_index = **token == *"-" || token.bytes().all(|byte| byte.is_ascii_digit());
        let (node, is_known) = place.0.member(token.as_bytes());
        // An element of an array has the place of the array; maps accept all keys.
        if is_index && !is_known && place.0.other_members.is_none() {
            continue;
        }
        let secrecy = if is_known {
            Secrecy::None
        } else {
            secrecy_of(token.as_bytes(), &Parent::new(Raw::assume(b"")))
        };
        place = (node, place.1.max(secrecy));
    }
    place
}

/// Whether a number may be shown: any number where one is expected, a short one elsewhere.
fn is_harmless_number(place: Place, text: &[u8]) -> bool {
    check::is_number(text)
        && (place.node.allowed != check::AllowedStrings::Hidden || text.len() <= MAX_UNKNOWN_NUMBER_LEN)
}

/// Whether a text is a placeholder for a redacted string. Redacting it again would hide that two values are equal.
pub fn is_placeholder(text: &[u8]) -> bool {
    let is_string = || {
        let rest = text.strip_prefix(STRING_START.as_bytes())?.strip_suffix(b">")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let hash = rest[digits..].strip_prefix(STRING_HASH.as_bytes())?;
        Some((1..=20).contains(&digits) && hash.len() == HASH_LEN && hash.iter().all(u8::is_ascii_hexdigit))
    };
    text == REDACTED.as_bytes() || is_string().unwrap_or(false)
}

/// The output format of a value.
#[derive(Clone, Copy, Default)]
struct Shape {
    depth: usize,
    /// Spaces before each line; `None` for compact JSON.
    indent: Option<usize>,
    /// Maximum output length in bytes, after which writing stops.
    limit: usize,
    /// Whether to escape strings again, as alerts do, instead of keeping the spelling of the source.
    escapes: bool,
}

/// An object or array without redaction, indented by two spaces. For conditions only: the result must not leave pullwatch.
pub fn indented(value: Raw<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let (key, show) = (RedactionKey::default(), ShowList::default());
    let shape = Shape { indent: Some(0), limit: usize::MAX, ..Shape::default() };
    Redactor::new(&key, &show).write(Place::PLAIN, value, shape, &mut out);
    out
}

fn new_line(indent: Option<usize>, out: &mut Vec<u8>) {
    if let Some(indent) = indent {
        out.push(b'\n');
        out.resize(out.len() + indent, b' ');
    }
}

/// Truncates to [`MAX_SHOWN_LEN`] bytes at a character boundary, so that valid UTF-8 stays valid.
fn truncate(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if text.len() <= MAX_SHOWN_LEN {
        return text;
    }
    let mut end = MAX_SHOWN_LEN;
    while end > MAX_SHOWN_LEN - 4 && text[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let mut shown = text[..end].to_vec();
    shown.extend_from_slice(ELLIPSIS.as_bytes());
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests;
