//! Extraction of field values from events.
//!
//! Takes a field of the catalog and an event, returns the [`Value`]. Each field has two views: the full value for conditions and the
//! redacted one for everything that leaves pullwatch. Both take the same path through the event and differ only in the last step.

use std::borrow::Cow;

use super::value::{Text, Value};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Pointer, Raw, Type};
use crate::detection::audit::outcome::Outcome;
use crate::detection::audit::redact::{self, Place, RedactionKey, Redactor, ShowList};
use crate::detection::audit::time::Clock;
use crate::detection::audit::{time, uri};
use crate::detection::networks::Networks;
use crate::detection::registry::{is_interactive_agent, runs_own_program};
use crate::detection::rules::ast::{FieldArgument, FieldRef};
use crate::detection::rules::fields::{ContainerPart, Containers, Source, Subjects};
use crate::text::escape::MAX_SHOWN_LEN;

/// The purpose for which a value is read.
#[derive(Clone, Copy, Debug)]
pub enum View<'r> {
    /// For conditions: the value itself.
    Full,
    /// For outputs: redacted.
    Redacted(Redactor<'r>),
}

/// Metadata of an event that its text does not contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputContext<'h> {
    /// Position in the input, starting at 1.
    pub position: u64,
    /// Name of the host that pullwatch runs on.
    pub hostname: &'h str,
    /// The networks of the cluster.
    pub networks: Option<&'h Networks>,
}

/// A field with its argument, prepared for reading.
#[derive(Clone, Debug)]
pub struct FieldReader {
    source: Source,
    index: Option<usize>,
    key: String,
    pointer: Option<Pointer>,
    /// Whether no value of this field is ever redacted.
    is_never_redacted: bool,
}

/// A JSON value together with its place in the event, which decides how it is redacted. Without redaction the place is not
/// tracked.
#[derive(Clone, Copy)]
struct PlacedValue<'a, 'r> {
    raw: Raw<'a>,
    place: Place,
    view: View<'r>,
}

impl<'a, 'r> PlacedValue<'a, 'r> {
    fn get(self, key: &str) -> Option<Self> {
        Some(self.at_member(key, self.raw.get(key)?))
    }

    fn at_member(self, key: &str, raw: Raw<'a>) -> Self {
        let place = match self.view {
            View::Full => Place::PLAIN,
            View::Redacted(redactor) => redactor.member(self.place, key.as_bytes(), self.raw),
        };
        PlacedValue { raw, place, view: self.view }
    }

    fn path(self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self, |found, key| found.get(key))
    }

    fn text(self) -> Text<'a> {
        match self.view {
            // Fast path for short values that are never redacted.
            View::Redacted(_) if self.place.is_plain() && self.raw.bytes().len() <= MAX_SHOWN_LEN => {
                self.raw.text()
            }
            View::Full => self.raw.text(),
            View::Redacted(redactor) => redactor.show(self.place, self.raw),
        }
    }

    fn items(self) -> impl Iterator<Item = PlacedValue<'a, 'r>> {
        self.raw.items().map_while(Result::ok).enumerate().map(move |(index, raw)| {
            let place = match self.view {
                View::Full => Place::PLAIN,
                View::Redacted(redactor) => redactor.item(self.place, index, raw),
            };
            PlacedValue { raw, place, view: self.view }
        })
    }
}

/// Returns the event itself, without reading it.
fn root<'a, 'r>(raw: Raw<'a>, view: View<'r>) -> PlacedValue<'a, 'r> {
    let place = match view {
        View::Full => Place::PLAIN,
        View::Redacted(redactor) => redactor.event(),
    };
    PlacedValue { raw, place, view }
}

fn top<'a, 'r>(event: &mut Event<'a>, key: &str, view: View<'r>) -> Option<PlacedValue<'a, 'r>> {
    let raw = event.member_by_name(key)?;
    // The place of a member of the event does not depend on its siblings, which need not be read.
    Some(root(Raw::assume(b""), view).at_member(key, raw))
}

fn path<'a, 'r>(event: &mut Event<'a>, keys: &[&str], view: View<'r>) -> Option<PlacedValue<'a, 'r>> {
    // Most rules read parts of objectRef, which the event parses only once.
    if let ["objectRef", part] = keys {
        let object = event.object();
        let raw = match *part {
            "apiGroup" => object.api_group,
            "resource" => object.resource,
            "namespace" => object.namespace,
            "name" => object.name,
            "subresource" => object.subresource,
            _ => event
                .get(Member::ObjectRef)?
                .get(part)
                .filter(|raw| !matches!(raw.bytes(), b"\"\"" | b"null")),
        };
        return raw.map(|raw| PlacedValue { raw, place: Place::HEAD, view });
    }
    let (first, rest) = keys.split_first()?;
    top(event, first, view)?.path(rest)
}

impl FieldReader {
    /// Prepares a field.
    pub fn new(field: &FieldRef) -> Self {
        let (index, key) = match &field.argument {
            Some(FieldArgument::Index(index)) => (Some(*index), String::new()),
            Some(FieldArgument::Key(key)) => (None, key.clone()),
            None => (None, String::new()),
        };
        let source = field.field.source;
        let pointer = (source == Source::Pointer).then(|| Pointer::new(&key));
        let mut reader = FieldReader { source, index, key, pointer, is_never_redacted: false };
        let path = match source {
            Source::Elements(keys) => Some(keys.to_vec()),
            _ => reader.static_path(),
        };
        // Outside of bodies the keys alone determine the place. Bodies are never exempt from redaction.
        let (key, show) = (RedactionKey::default(), ShowList::default());
        let redactor = Redactor::new(&key, &show);
        let place = path.map(|path| {
            path.iter()
                .fold(redactor.event(), |place, key| redactor.member(place, key.as_bytes(), Raw::assume(b"")))
        });
        reader.is_never_redacted = place.is_some_and(Place::is_plain);
        reader
    }

    /// Returns the object keys that lead to the value, if they are fixed.
    pub fn static_path(&self) -> Option<Vec<&str>> {
        match (&self.source, &self.pointer) {
            (Source::Path(keys), _) => Some(keys.to_vec()),
            (_, Some(pointer)) => Some(pointer.tokens().iter().map(|token| &**token).collect()),
            _ => None,
        }
    }

    /// Whether no value of this field is ever redacted: both views are equal, except that the redacted one is truncated.
    pub fn is_never_redacted(&self) -> bool {
        self.is_never_redacted
    }

    /// Whether the value is derived from the users of the event.
    pub fn is_user_derived(&self) -> bool {
        matches!(self.source, Source::UserKind | Source::Actor | Source::Extra | Source::UserExtra(_))
    }

    /// Whether the value depends on the form of the event alone: see [`Event::anomalies`].
    pub fn is_anomaly(&self) -> bool {
        matches!(self.source, Source::TargetMissing | Source::Oversized)
    }

    /// Whether the value is contained in the text of the event, apart from JSON escapes, rather than computed, joined or decoded.
    pub fn is_verbatim(&self) -> bool {
        match self.source {
            Source::Path(_) | Source::Elements(_) | Source::Pointer | Source::PodName => true,
            Source::RoleRules(_) | Source::Volume(_) | Source::VolumeTypes => true,
            Source::Container(_, part) | Source::FirstContainer(part) => {
                matches!(part, ContainerPart::Path(_) | ContainerPart::Image)
            }
            Source::Subjects(subjects) => subjects != Subjects::NamespacedServiceAccounts,
            _ => false,
        }
    }

    /// The key of the member that holds the value, if it is known: an event without this key has no value.
    pub fn last_key(&self) -> Option<&str> {
        match self.source {
            Source::Path(keys) => keys.last().copied(),
            _ => None,
        }
    }

    /// Reads the value from an event.
    pub fn read<'a>(&self, event: &mut Event<'a>, input: &InputContext<'_>, view: View<'_>) -> Value<'a> {
        match self.source {
            Source::Path(keys) => Value::text(path(event, keys, view).map(PlacedValue::text)),
            Source::Pointer => Value::text(self.at_pointer(event, view).map(PlacedValue::text)),
            Source::Elements(keys) => {
                let Some(found) = path(event, keys, view) else { return Value::Missing };
                Value::list(self.selected(found.items()).map(PlacedValue::text).collect())
            }
            Source::Whole | Source::WholeIndented => whole(event, self.source, view),
            Source::UriParameter => {
                let Some(uri) = event.text(Member::RequestUri) else { return Value::Missing };
                let value = uri::parameter(&uri, self.key.as_bytes()).map(|value| match view {
                    View::Full => value.into_owned(),
                    View::Redacted(redactor) => redactor.parameter(self.key.as_bytes(), value).into_owned(),
                });
                Value::text(value.map(Cow::Owned))
            }
            Source::PodName => {
                let object = event.object();
                let pods =
                    object.resource.and_then(Raw::string).is_some_and(|resource| *resource == *b"pods");
                if !pods || object.subresource.is_some() {
                    return Value::Missing;
                }
                Value::text(path(event, &["responseObject", "metadata", "name"], view).map(PlacedValue::text))
            }
            Source::Container(which, part) => self.containers(event, which, part, view),
            Source::FirstContainer(part) => {
                let first = FieldReader { index: Some(0), ..self.clone() };
                match first.containers(event, Containers::Main, part, view) {
                    Value::List(texts) => Value::text(texts.into_iter().next()),
                    _ => Value::Missing,
                }
            }
            Source::AnyPrivileged => {
                let Some(containers) = array(path(event, &["requestObject", "spec", "containers"], view))
                else {
                    return Value::Missing;
                };
                let privileged = containers.items().any(|container| {
                    container
                        .path(&["securityContext", "privileged"])
                        .is_some_and(|found| found.raw.bytes() == b"true")
                });
                boolean(privileged)
            }
            Source::Subjects(which) => subjects(event, which, view),
            Source::AlwaysTrue => boolean(true),
            Source::RoleRules(key) => {
                let Some(rules) = array(path(event, &["requestObject", "rules"], view)) else {
                    return Value::Missing;
                };
                let texts = self
                    .selected(rules.items())
                    .filter_map(|rule| array(rule.get(key)))
                    .flat_map(PlacedValue::items);
                Value::list(texts.map(PlacedValue::text).collect())
            }
            Source::Volume(keys) => {
                let Some(volumes) = volumes(event, view) else { return Value::Missing };
                let texts = self.selected(volumes.items()).filter_map(|volume| volume.path(keys));
                Value::list(texts.map(PlacedValue::text).collect())
            }
            Source::VolumeTypes => {
                let Some(volumes) = volumes(event, view) else { return Value::Missing };
                let keys = self.selected(volumes.items()).flat_map(|volume| {
                    volume
                        .raw
                        .members()
                        .map_while(Result::ok)
                        .map(|(key, _)| key.text())
                        .filter(|key| **key != *b"name")
                        .map(move |key| match view {
                            View::Full => key,
                            View::Redacted(redactor) => {
                                Cow::Owned(redactor.key(volume.place, &key).into_owned())
                            }
                        })
                });
                Value::list(keys.collect())
            }
            Source::HasHostPath => {
                let Some(volumes) = volumes(event, view) else { return Value::Missing };
                let wanted = self.key.as_bytes();
                let mut paths = volumes.items().filter_map(|volume| volume.path(&["hostPath", "path"]));
                boolean(paths.any(|path| match wanted.strip_suffix(b"*") {
                    Some(prefix) => path.raw.text().starts_with(prefix),
                    None => *path.raw.text() == *wanted,
                }))
            }
            Source::Nanoseconds => time_number(event, |time| time),
            Source::Seconds => time_number(event, |time| time.div_euclid(1_000_000_000)),
            Source::SubsecondNanoseconds => time_number(event, |time| time.rem_euclid(1_000_000_000)),
            Source::Clock(Clock::Time) if matches!(view, View::Full) => time_number(event, |time| time),
            Source::Clock(clock) => match event.time() {
                Some(time) => Value::Text(Cow::Owned(time::format(clock, time).into_bytes())),
                None => Value::Missing,
            },
            Source::Position => Value::Number(i64::try_from(input.position).unwrap_or(i64::MAX)),
            Source::Constant(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
            Source::Hostname => Value::Text(Cow::Owned(input.hostname.as_bytes().to_vec())),
            Source::Cluster => Value::text(event.cluster()),
            Source::ClientAddress => {
                let addresses = path(event, &["sourceIPs"], view);
                Value::text(addresses.and_then(|found| found.items().last()).map(PlacedValue::text))
            }
            Source::ClientNetwork => {
                let addresses = path(event, &["sourceIPs"], View::Full);
                let address = addresses.and_then(|found| found.items().last()).map(PlacedValue::text);
                let place = address
                    .zip(input.networks)
                    .and_then(|(address, networks)| networks.place_of(&String::from_utf8_lossy(&address)));
                Value::text(place.map(|place| Cow::Borrowed(place.as_bytes())))
            }
            Source::Extra => {
                let Some(values) = path(event, &["user", "extra", &self.key], view) else {
                    return Value::Missing;
                };
                Value::list(values.items().map(PlacedValue::text).collect())
            }
            Source::UserExtra(key) => {
                let values = path(event, &["user", "extra", key], view);
                Value::text(values.and_then(|found| found.items().next()).map(PlacedValue::text))
            }
            Source::UserKind => {
                let name = path(event, &["user", "username"], View::Full).map(PlacedValue::text);
                let mut groups =
                    path(event, &["user", "groups"], View::Full).into_iter().flat_map(PlacedValue::items);
                let is_kubelet = groups.any(|group| *group.text() == *KUBELET_GROUP);
                let kind = user_kind(&name.unwrap_or_default(), is_kubelet);
                Value::Text(Cow::Borrowed(kind.as_bytes()))
            }
            Source::Actor => {
                let user = path(event, &["user", "username"], view).map(PlacedValue::text);
                match path(event, &["impersonatedUser", "username"], view) {
                    Some(impersonated) => {
                        let mut both = user.unwrap_or_default().into_owned();
                        both.extend_from_slice(b" as ");
                        both.extend_from_slice(&impersonated.text());
                        Value::Text(Cow::Owned(both))
                    }
                    None => match user {
                        Some(user) if is_outside_of_service_accounts(event) => {
                            Value::Text(Cow::Owned([&user, OUTSIDE_OF_GROUP].concat()))
                        }
                        Some(user) if runs_own_program(event) == Some(false) => {
                            Value::Text(Cow::Owned([&user, UNEXPECTED_PROGRAM].concat()))
                        }
                        user => Value::text(user),
                    },
                }
            }
            Source::UserProgram => Value::text(
                runs_own_program(event)
                    .map(|is_own| Cow::Borrowed(if is_own { &b"expected"[..] } else { &b"unexpected"[..] })),
            ),
            Source::Interactive => {
                let agent = event.text(Member::UserAgent).unwrap_or_default();
                boolean(is_interactive_agent(&String::from_utf8_lossy(&agent)))
            }
            Source::Truncated => boolean(event.is_truncated()),
            Source::TargetMissing => boolean(event.is_truncated_before_target()),
            Source::Oversized => {
                Value::list(event.oversized().map(|member| Cow::Borrowed(member.as_bytes())).collect())
            }
            Source::Outcome => Value::Text(Outcome::of(event).name().as_bytes().into()),
            // The evaluator determines these, once per event.
            Source::Exposure(_) | Source::Registry(_) | Source::Reader(_) | Source::ClientNode(_) => {
                Value::Missing
            }
            // No event has these.
            Source::Correlation(_) => Value::Missing,
        }
    }

    fn at_pointer<'a, 'r>(&self, event: &mut Event<'a>, view: View<'r>) -> Option<PlacedValue<'a, 'r>> {
        let tokens = self.pointer.as_ref()?.tokens();
        let Some((first, rest)) = tokens.split_first() else {
            return Some(root(Raw::assume(event.bytes()), view));
        };
        rest.iter().try_fold(top(event, first, view)?, |found, token| {
            let raw = found.raw.step(token)?;
            let place = match view {
                View::Full => Place::PLAIN,
                View::Redacted(redactor) => redactor.step(found.place, token, found.raw, raw),
            };
            Some(PlacedValue { raw, place, view })
        })
    }

    /// Returns all elements, or the one at the index of the argument.
    fn selected<'a, 'r>(
        &self,
        items: impl Iterator<Item = PlacedValue<'a, 'r>>,
    ) -> impl Iterator<Item = PlacedValue<'a, 'r>> {
        let (from, count) = self.index.map_or((0, usize::MAX), |index| (index, 1));
        items.skip(from).take(count)
    }

    fn containers<'a>(
        &self,
        event: &mut Event<'a>,
        which: Containers,
        part: ContainerPart,
        view: View<'_>,
    ) -> Value<'a> {
        let Some(spec) = path(event, &["requestObject", "spec"], view) else { return Value::Missing };
        let Some(containers) = array(spec.get(which.key())) else { return Value::Missing };
        let mut texts: Vec<Text<'a>> = Vec::new();
        for container in self.selected(containers.items()) {
            match part {
                ContainerPart::Path(keys) => texts.extend(container.path(keys).map(PlacedValue::text)),
                ContainerPart::Image | ContainerPart::Repository => {
                    let Some(image) = container.get("image").map(PlacedValue::text) else {
                        return Value::Missing;
                    };
                    texts.push(if part == ContainerPart::Repository { repository(image) } else { image });
                }
                ContainerPart::Joined(key) => {
                    let Some(words) = array(container.get(key)) else { continue };
                    let words: Vec<_> = words.items().map(PlacedValue::text).collect();
                    texts.push(Cow::Owned(words.join(&b' ')));
                }
                ContainerPart::HostPort => {
                    let Some(ports) = array(container.get("ports")) else { continue };
                    let ports = ports
                        .items()
                        .filter_map(|port| port.get("hostPort").or_else(|| port.get("containerPort")));
                    texts.extend(ports.map(PlacedValue::text));
                }
                ContainerPart::Effective(key) => {
                    let value = container.get(key).or_else(|| spec.get(key));
                    texts.push(value.map_or(Cow::Borrowed(b"0"), PlacedValue::text));
                }
            }
        }
        Value::list(texts)
    }
}

/// Appended to the name of a service account that is in none of the service account groups, so that no list of trusted actors contains it.
const OUTSIDE_OF_GROUP: &[u8] = b" (outside of its group)";

/// Appended to the name of a component or platform controller whose identity another program uses, for the same reason.
const UNEXPECTED_PROGRAM: &[u8] = b" (unexpected program)";

/// Whether the user has the name of a service account, but not the groups that the apiserver assigns to every service account: a
/// certificate can contain the name without the groups.
fn is_outside_of_service_accounts(event: &mut Event<'_>) -> bool {
    const GROUP: &[u8] = b"system:serviceaccounts";
    let Some(name) = path(event, &["user", "username"], View::Full).map(PlacedValue::text) else {
        return false;
    };
    let Some(account) = name.strip_prefix(b"system:serviceaccount:") else { return false };
    let namespace = account.split(|byte| *byte == b':').next().unwrap_or_default();
    // Every authenticated user has at least one group; test events may have none.
    let Some(groups) = path(event, &["user", "groups"], View::Full) else { return event.is_truncated() };
    let has = |group: &[u8]| groups.items().any(|one| *one.text() == *group);
    !(has(GROUP) && has(&[GROUP, b":", namespace].concat()))
}

/// The group of all kubelets.
const KUBELET_GROUP: &[u8] = b"system:nodes";

/// Classifies a user by the shape of its name. The prefix `system:` is reserved: such names only come from certificates and tokens of the
/// cluster. Like the node authorizer, this only accepts a kubelet that is in the group of kubelets: a certificate can contain its name
/// without the group.
pub fn user_kind(name: &[u8], is_kubelet: bool) -> &'static str {
    match name {
        b"" | b"system:anonymous" => "anonymous",
        name if name.starts_with(b"system:serviceaccount:") => "serviceaccount",
        name if name.starts_with(b"system:node:") && is_kubelet => "node",
        name if name.starts_with(b"system:node:") => "human",
        name if name.starts_with(b"system:") => "system",
        _ => "human",
    }
}

fn array<'a, 'r>(found: Option<PlacedValue<'a, 'r>>) -> Option<PlacedValue<'a, 'r>> {
    found.filter(|found| found.raw.kind() == Type::Array)
}

fn volumes<'a, 'r>(event: &mut Event<'a>, view: View<'r>) -> Option<PlacedValue<'a, 'r>> {
    array(path(event, &["requestObject", "spec", "volumes"], view))
}

fn boolean(value: bool) -> Value<'static> {
    Value::Text(Cow::Borrowed(if value { b"true" } else { b"false" }))
}

fn time_number(event: &mut Event<'_>, read: impl Fn(i64) -> i64) -> Value<'static> {
    event.time().map_or(Value::Missing, |time| Value::Number(read(time)))
}

fn whole<'a>(event: &mut Event<'a>, source: Source, view: View<'_>) -> Value<'a> {
    let raw = Raw::assume(event.bytes());
    Value::Text(match (source, view) {
        (Source::WholeIndented, View::Full) => Cow::Owned(redact::indented(raw)),
        (Source::WholeIndented, View::Redacted(redactor)) => {
            Cow::Owned(redactor.show_indented(redactor.event(), raw))
        }
        (_, View::Full) => Cow::Borrowed(raw.bytes()),
        (_, View::Redacted(redactor)) => redactor.show(redactor.event(), raw),
    })
}

fn subjects<'a>(event: &mut Event<'a>, which: Subjects, view: View<'_>) -> Value<'a> {
    let kind: &[u8] = match which {
        Subjects::Users => b"User",
        Subjects::Groups => b"Group",
        Subjects::ServiceAccounts | Subjects::NamespacedServiceAccounts => b"ServiceAccount",
    };
    let Some(subjects) = array(path(event, &["requestObject", "subjects"], view)) else {
        return Value::Missing;
    };
    let names = subjects
        .items()
        .filter(|subject| subject.get("kind").is_some_and(|found| *found.raw.text() == *kind))
        .filter_map(|subject| {
            let name = subject.get("name")?.text();
            if which != Subjects::NamespacedServiceAccounts {
                return Some(name);
            }
            let mut both = subject.get("namespace")?.text().into_owned();
            both.push(b':');
            both.extend_from_slice(&name);
            Some(Cow::Owned(both))
        });
    Value::list(names.collect())
}

/// Returns an image reference without tag and digest. The colon before a registry's port does not start a tag.
fn repository(image: Text<'_>) -> Text<'_> {
    let end = memchr::memchr(b'@', &image).unwrap_or(image.len());
    let last = memchr::memrchr(b'/', &image[..end]).map_or(0, |slash| slash + 1);
    let end = memchr::memchr(b':', &image[last..end]).map_or(end, |colon| last + colon);
    match image {
        Cow::Borrowed(image) => Cow::Borrowed(&image[..end]),
        Cow::Owned(mut image) => {
            image.truncate(end);
            Cow::Owned(image)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::rules::fields;

    fn read(name: &str, argument: Option<FieldArgument>, event: &str, view: View<'_>) -> Vec<String> {
        let reader = FieldReader::new(&FieldRef { field: fields::find(name).unwrap(), argument });
        let value = reader.read(&mut Event::new(event.as_bytes()), &InputContext::default(), view);
        value.texts().iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    #[test]
    fn images_lose_tag_and_digest_but_not_the_port() {
        for (image, name) in [
            ("nginx:1.25", "nginx"),
            ("registry.local:5000/app:1", "registry.local:5000/app"),
            ("registry.local:5000/app", "registry.local:5000/app"),
            ("quay.io/org/app@sha256:abc", "quay.io/org/app"),
            ("quay.io/org/app:1@sha256:abc", "quay.io/org/app"),
        ] {
            assert_eq!(*repository(Cow::Borrowed(image.as_bytes())), *name.as_bytes());
        }
    }

    #[test]
    fn a_service_account_is_one_only_in_its_groups() {
        let outside = |user: &str| {
            is_outside_of_service_accounts(&mut Event::new(format!("{{\"user\":{user}}}").as_bytes()))
        };
        let user =
            |groups: &str| format!(r#"{{"username":"system:serviceaccount:a:b","groups":[{groups}]}}"#);
        let (all, own) = (r#""system:serviceaccounts""#, r#""system:serviceaccounts:a""#);
        assert!(!outside(&user(&format!(r#"{all},{own},"system:authenticated""#))));
        assert!(outside(&user(r#""system:authenticated""#)));
        assert!(outside(&user(all)) && outside(&user(own)) && outside(&user("")));
        assert!(outside(&user(&format!(r#"{all},"system:serviceaccounts:b""#))));
        assert!(!outside(r#"{"username":"jane","groups":["x"]}"#));
        assert!(!outside(r#"{"username":"system:serviceaccount:a:b"}"#));
    }

    #[test]
    fn a_kubelet_is_one_only_in_its_group() {
        assert_eq!(user_kind(b"system:node:a", true), "node");
        assert_eq!(user_kind(b"system:node:a", false), "human");
        assert_eq!(user_kind(b"system:kube-scheduler", true), "system");
        assert_eq!(user_kind(b"system:serviceaccount:a:b", true), "serviceaccount");
    }

    #[test]
    fn containers_without_a_value_are_skipped() {
        let event = r#"{"requestObject":{"spec":{"runAsUser":7,"containers":[
            {"name":"a","runAsUser":1,"securityContext":{"runAsUser":3}},{"name":"b","image":"x:1","command":["sh","-c"]}]}}}"#;
        assert_eq!(read("ka.req.pod.containers.run_as_user", None, event, View::Full), ["3"]);
        assert_eq!(read("ka.req.pod.containers.eff_run_as_user", None, event, View::Full), ["1", "7"]);
        // If one container has no image, the field is missing for all.
        assert!(read("ka.req.pod.containers.image", None, event, View::Full).is_empty());
        assert_eq!(read("ka.req.pod.containers.command", None, event, View::Full), ["sh -c"]);
        let second = Some(FieldArgument::Index(1));
        assert_eq!(read("ka.req.pod.containers.name", second, event, View::Full), ["b"]);
    }

    #[test]
    fn conditions_see_values_that_outputs_redact() {
        let redaction_key = RedactionKey::default();
        let event = r#"{"requestURI":"/a?token=loot","requestObject":{"data":{"password":"loot"}}}"#;
        let key = |key: &str| Some(FieldArgument::Key(key.to_owned()));
        for (name, argument, hidden) in [
            (
                "ka.req.configmap.obj",
                None,
                r#"{"password":"<redacted string of 4 bytes, hash 8dbe265dd312>"}"#,
            ),
            (
                "jevt.value",
                key("/requestObject/data/password"),
                "<redacted string of 4 bytes, hash 8dbe265dd312>",
            ),
            ("ka.uri.param", key("token"), "<redacted string of 4 bytes, hash 8dbe265dd312>"),
            ("ka.uri", None, "/a?token=<redacted string of 4 bytes, hash 8dbe265dd312>"),
        ] {
            assert!(read(name, argument.clone(), event, View::Full)[0].contains("loot"));
            assert_eq!(
                read(name, argument, event, View::Redacted(Redactor::new(&redaction_key, &ShowList::EMPTY))),
                [hidden]
            );
        }
        // Cached unredacted values must not be reused for outputs of these fields.
        let patch = "/annotations/patch.webhook.admission.k8s.io~1round_0_index_0";
        for pointer in [patch, "/annotations", ""] {
            assert!(
                !FieldReader::new(&FieldRef {
                    field: fields::find("jevt.value").unwrap(),
                    argument: key(pointer)
                })
                .is_never_redacted()
            );
        }
        for name in ["jevt.obj", "evt.plugininfo"] {
            assert!(
                !read(name, None, event, View::Redacted(Redactor::new(&redaction_key, &ShowList::EMPTY)))[0]
                    .contains("loot")
            );
        }
    }
}
