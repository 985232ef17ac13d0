//! From a field of the catalogue to its value in an event.
//!
//! Each field is read in two ways: as it is, for conditions, and as it may be shown, for everything that
//! leaves pullwatch. Both go the same way through the event; only the last step differs.

use std::borrow::Cow;

use super::value::{Text, Value};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::{Pointer, Raw, Type};
use crate::detection::audit::redact::{self, Place};
use crate::detection::audit::time::Clock;
use crate::detection::audit::{time, uri};
use crate::detection::rules::ast::{FieldArgument, FieldRef};
use crate::detection::rules::fields::{Containers, Part, Source, Subjects};
use crate::text::escape::MAX_SHOWN_LEN;

/// What a value is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// A condition: it sees what is there.
    Real,
    /// Anything that leaves pullwatch: secrets are hidden.
    Shown,
}

/// What is known of an event beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'h> {
    /// Its position in the input, from 1.
    pub position: u64,
    /// The name of the host.
    pub hostname: &'h str,
}

/// A field and its argument, ready to be read.
#[derive(Clone, Debug)]
pub struct Access {
    source: Source,
    index: Option<usize>,
    key: String,
    pointer: Option<Pointer>,
    /// Nothing at this place is ever hidden.
    is_plain: bool,
}

/// A value on its way out of the event: where it is, and where that is.
#[derive(Clone, Copy)]
struct Found<'a> {
    raw: Raw<'a>,
    place: Place,
}

impl<'a> Found<'a> {
    fn get(self, key: &str) -> Option<Self> {
        Some(Found { raw: self.raw.get(key)?, place: self.place.member(key.as_bytes(), self.raw) })
    }

    fn path(self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self, |found, key| found.get(key))
    }

    fn text(self, view: View) -> Text<'a> {
        match view {
            // Most values hold no secret and are short.
            View::Shown if self.place == Place::Plain && self.raw.bytes().len() <= MAX_SHOWN_LEN => {
                self.raw.text()
            }
            View::Real => self.raw.text(),
            View::Shown => self.place.show(self.raw),
        }
    }

    fn items(self) -> impl Iterator<Item = Found<'a>> {
        let place = self.place.item();
        self.raw.items().map_while(Result::ok).map(move |raw| Found { raw, place })
    }
}

fn top<'a>(event: &mut Event<'a>, key: &str) -> Option<Found<'a>> {
    let raw = event.named(key)?;
    Some(Found { raw, place: Place::Event.member(key.as_bytes(), raw) })
}

fn path<'a>(event: &mut Event<'a>, keys: &[&str]) -> Option<Found<'a>> {
    // Most rules ask for parts of objectRef, which an event takes apart only once.
    if let ["objectRef", part] = keys {
        let object = event.object();
        let raw = match *part {
            "resource" => object.resource,
            "namespace" => object.namespace,
            "name" => object.name,
            "subresource" => object.subresource,
            _ => event.get(Member::ObjectRef)?.get(part),
        };
        return raw.map(|raw| Found { raw, place: Place::Plain });
    }
    let (first, rest) = keys.split_first()?;
    top(event, first)?.path(rest)
}

impl Access {
    /// Prepares a field for reading.
    pub fn new(field: &FieldRef) -> Self {
        let (index, key) = match &field.argument {
            Some(FieldArgument::Index(index)) => (Some(*index), String::new()),
            Some(FieldArgument::Key(key)) => (None, key.clone()),
            None => (None, String::new()),
        };
        let source = field.field.source;
        let pointer = (source == Source::Pointer).then(|| Pointer::new(&key));
        let mut access = Access { source, index, key, pointer, is_plain: false };
        let path = match source {
            Source::Elements(keys) => Some(keys.to_vec()),
            _ => access.plain_path(),
        };
        // Where keys lead is known without an event, but in bodies, which are never plain.
        let place = path.map(|path| {
            path.iter().fold(Place::Event, |place, key| place.member(key.as_bytes(), Raw::assume(b"")))
        });
        access.is_plain = place == Some(Place::Plain);
        access
    }

    /// The path of keys that the value stands at, where it is a plain one.
    pub fn plain_path(&self) -> Option<Vec<&str>> {
        match (&self.source, &self.pointer) {
            (Source::Path(keys), _) => Some(keys.to_vec()),
            (_, Some(pointer)) => Some(pointer.tokens().iter().map(|token| &**token).collect()),
            _ => None,
        }
    }

    /// Whether nothing at this place is ever hidden, so that both views are the same, length apart.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether the value is made from the users of the event.
    pub fn is_of_user(&self) -> bool {
        matches!(self.source, Source::UserKind | Source::Actor | Source::Extra)
    }

    /// Whether the value is a slice of the event's text, escapes apart: not computed, joined or decoded.
    pub fn is_verbatim(&self) -> bool {
        match self.source {
            Source::Path(_) | Source::Elements(_) | Source::Pointer | Source::PodName => true,
            Source::RoleRules(_) | Source::Volume(_) | Source::VolumeTypes => true,
            Source::Container(_, part) | Source::FirstContainer(part) => {
                matches!(part, Part::Path(_) | Part::Image)
            }
            Source::Subjects(subjects) => subjects != Subjects::NamespacedServiceAccounts,
            _ => false,
        }
    }

    /// Reads the value.
    pub fn read<'a>(&self, event: &mut Event<'a>, context: &Context<'_>, view: View) -> Value<'a> {
        match self.source {
            Source::Path(keys) => Value::text(path(event, keys).map(|found| found.text(view))),
            Source::Pointer => Value::text(self.pointed(event).map(|found| found.text(view))),
            Source::Elements(keys) => {
                let Some(found) = path(event, keys) else { return Value::Missing };
                Value::list(self.picked(found.items()).map(|found| found.text(view)).collect())
            }
            Source::Whole | Source::WholeIndented => whole(event, self.source, view),
            Source::UriParameter => {
                let Some(uri) = event.text(Member::RequestUri) else { return Value::Missing };
                let value = uri::parameter(&uri, self.key.as_bytes()).map(Cow::into_owned);
                match view {
                    View::Shown if value.is_some() && redact::is_secret_parameter(self.key.as_bytes()) => {
                        Value::Text(Cow::Borrowed(redact::REDACTED.as_bytes()))
                    }
                    _ => Value::text(value.map(Cow::Owned)),
                }
            }
            Source::PodName => {
                let object = event.object();
                let pods =
                    object.resource.and_then(Raw::string).is_some_and(|resource| *resource == *b"pods");
                if !pods || object.subresource.is_some() {
                    return Value::Missing;
                }
                Value::text(
                    path(event, &["responseObject", "metadata", "name"]).map(|found| found.text(view)),
                )
            }
            Source::Container(which, part) => self.containers(event, which, part, view),
            Source::FirstContainer(part) => {
                let first = Access { index: Some(0), ..self.clone() };
                match first.containers(event, Containers::Main, part, view) {
                    Value::List(texts) => Value::text(texts.into_iter().next()),
                    _ => Value::Missing,
                }
            }
            Source::AnyPrivileged => {
                let Some(containers) = array(path(event, &["requestObject", "spec", "containers"])) else {
                    return Value::Missing;
                };
                let privileged = containers.items().any(|container| {
                    container
                        .path(&["securityContext", "privileged"])
                        .is_some_and(|found| found.raw.bytes() == b"true")
                });
                truth(privileged)
            }
            Source::Subjects(which) => subjects(event, which, view),
            Source::AlwaysTrue => truth(true),
            Source::RoleRules(key) => {
                let Some(rules) = array(path(event, &["requestObject", "rules"])) else {
                    return Value::Missing;
                };
                let texts =
                    self.picked(rules.items()).filter_map(|rule| array(rule.get(key))).flat_map(Found::items);
                Value::list(texts.map(|found| found.text(view)).collect())
            }
            Source::Volume(keys) => {
                let Some(volumes) = volumes(event) else { return Value::Missing };
                let texts = self.picked(volumes.items()).filter_map(|volume| volume.path(keys));
                Value::list(texts.map(|found| found.text(view)).collect())
            }
            Source::VolumeTypes => {
                let Some(volumes) = volumes(event) else { return Value::Missing };
                let keys = self.picked(volumes.items()).flat_map(|volume| {
                    volume
                        .raw
                        .members()
                        .map_while(Result::ok)
                        .map(|(key, _)| key.text())
                        .filter(|key| **key != *b"name")
                });
                Value::list(keys.collect())
            }
            Source::HasHostPath => {
                let Some(volumes) = volumes(event) else { return Value::Missing };
                let wanted = self.key.as_bytes();
                let mut paths = volumes.items().filter_map(|volume| volume.path(&["hostPath", "path"]));
                truth(paths.any(|path| match wanted.strip_suffix(b"*") {
                    Some(prefix) => path.raw.text().starts_with(prefix),
                    None => *path.raw.text() == *wanted,
                }))
            }
            Source::Nanoseconds => timed(event, |time| time),
            Source::Seconds => timed(event, |time| time.div_euclid(1_000_000_000)),
            Source::SubsecondNanoseconds => timed(event, |time| time.rem_euclid(1_000_000_000)),
            Source::Clock(Clock::Time) if view == View::Real => timed(event, |time| time),
            Source::Clock(clock) => match event.time() {
                Some(time) => Value::Text(Cow::Owned(time::format(clock, time).into_bytes())),
                None => Value::Missing,
            },
            Source::Position => Value::Number(i64::try_from(context.position).unwrap_or(i64::MAX)),
            Source::Constant(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
            Source::Hostname => Value::Text(Cow::Owned(context.hostname.as_bytes().to_vec())),
            Source::ClientAddress => {
                let addresses = path(event, &["sourceIPs"]);
                Value::text(addresses.and_then(|found| found.items().last()).map(|found| found.text(view)))
            }
            Source::Extra => {
                let Some(values) = path(event, &["user", "extra", &self.key]) else { return Value::Missing };
                Value::list(values.items().map(|found| found.text(view)).collect())
            }
            Source::UserKind => {
                let name = path(event, &["user", "username"]).map(|found| found.text(View::Real));
                Value::Text(Cow::Borrowed(user_kind(&name.unwrap_or_default()).as_bytes()))
            }
            Source::Actor => {
                let user = path(event, &["user", "username"]).map(|found| found.text(view));
                match path(event, &["impersonatedUser", "username"]) {
                    Some(posed) => {
                        let mut both = user.unwrap_or_default().into_owned();
                        both.extend_from_slice(b" as ");
                        both.extend_from_slice(&posed.text(view));
                        Value::Text(Cow::Owned(both))
                    }
                    None => Value::text(user),
                }
            }
            Source::Truncated => truth(event.is_truncated()),
            // Read by the judge, once an event.
            Source::Registry(_) => Value::Missing,
            // Not in any event.
            Source::Correlation(_) => Value::Missing,
        }
    }

    fn pointed<'a>(&self, event: &mut Event<'a>) -> Option<Found<'a>> {
        let tokens = self.pointer.as_ref()?.tokens();
        let Some((first, rest)) = tokens.split_first() else {
            return Some(Found { raw: Raw::assume(event.bytes()), place: Place::Event });
        };
        rest.iter().try_fold(top(event, first)?, |found, token| {
            Some(Found { raw: found.raw.step(token)?, place: found.place.step(token, found.raw) })
        })
    }

    /// All elements, or the one that the argument asks for.
    fn picked<'a>(&self, items: impl Iterator<Item = Found<'a>>) -> impl Iterator<Item = Found<'a>> {
        let (from, count) = self.index.map_or((0, usize::MAX), |index| (index, 1));
        items.skip(from).take(count)
    }

    fn containers<'a>(&self, event: &mut Event<'a>, which: Containers, part: Part, view: View) -> Value<'a> {
        let Some(spec) = path(event, &["requestObject", "spec"]) else { return Value::Missing };
        let Some(containers) = array(spec.get(which.key())) else { return Value::Missing };
        let mut texts: Vec<Text<'a>> = Vec::new();
        for container in self.picked(containers.items()) {
            match part {
                Part::Path(keys) => texts.extend(container.path(keys).map(|found| found.text(view))),
                Part::Image | Part::Repository => {
                    let Some(image) = container.get("image").map(|found| found.text(view)) else {
                        return Value::Missing;
                    };
                    texts.push(if part == Part::Repository { repository(image) } else { image });
                }
                Part::Joined(key) => {
                    let Some(words) = array(container.get(key)) else { continue };
                    let words: Vec<_> = words.items().map(|found| found.text(view)).collect();
                    texts.push(Cow::Owned(words.join(&b' ')));
                }
                Part::HostPort => {
                    let Some(ports) = array(container.get("ports")) else { continue };
                    let ports = ports
                        .items()
                        .filter_map(|port| port.get("hostPort").or_else(|| port.get("containerPort")));
                    texts.extend(ports.map(|found| found.text(view)));
                }
                Part::Effective(key) => {
                    let value = container.get(key).or_else(|| spec.get(key));
                    texts.push(value.map_or(Cow::Borrowed(b"0"), |found| found.text(view)));
                }
            }
        }
        Value::list(texts)
    }
}

/// What kind of user goes by that name. The apiserver keeps the prefix for its own: `system:` names come from its
/// certificates and tokens alone.
pub fn user_kind(name: &[u8]) -> &'static str {
    match name {
        b"" | b"system:anonymous" => "anonymous",
        name if name.starts_with(b"system:serviceaccount:") => "serviceaccount",
        name if name.starts_with(b"system:node:") => "node",
        name if name.starts_with(b"system:") => "system",
        _ => "human",
    }
}

fn array(found: Option<Found<'_>>) -> Option<Found<'_>> {
    found.filter(|found| found.raw.kind() == Type::Array)
}

fn volumes<'a>(event: &mut Event<'a>) -> Option<Found<'a>> {
    array(path(event, &["requestObject", "spec", "volumes"]))
}

fn truth(value: bool) -> Value<'static> {
    Value::Text(Cow::Borrowed(if value { b"true" } else { b"false" }))
}

fn timed(event: &mut Event<'_>, read: impl Fn(i64) -> i64) -> Value<'static> {
    event.time().map_or(Value::Missing, |time| Value::Number(read(time)))
}

fn whole<'a>(event: &mut Event<'a>, source: Source, view: View) -> Value<'a> {
    let raw = Raw::assume(event.bytes());
    Value::Text(match (source, view) {
        (Source::WholeIndented, View::Real) => Cow::Owned(redact::indented(raw)),
        (Source::WholeIndented, View::Shown) => Cow::Owned(Place::Event.show_indented(raw)),
        (_, View::Real) => Cow::Borrowed(raw.bytes()),
        (_, View::Shown) => Place::Event.show(raw),
    })
}

fn subjects<'a>(event: &mut Event<'a>, which: Subjects, view: View) -> Value<'a> {
    let kind: &[u8] = match which {
        Subjects::Users => b"User",
        Subjects::Groups => b"Group",
        Subjects::ServiceAccounts | Subjects::NamespacedServiceAccounts => b"ServiceAccount",
    };
    let Some(subjects) = array(path(event, &["requestObject", "subjects"])) else { return Value::Missing };
    let names = subjects
        .items()
        .filter(|subject| subject.get("kind").is_some_and(|found| *found.raw.text() == *kind))
        .filter_map(|subject| {
            let name = subject.get("name")?.text(view);
            if which != Subjects::NamespacedServiceAccounts {
                return Some(name);
            }
            let mut both = subject.get("namespace")?.text(view).into_owned();
            both.push(b':');
            both.extend_from_slice(&name);
            Some(Cow::Owned(both))
        });
    Value::list(names.collect())
}

/// An image's name without tag and digest: the colon before a registry's port is none of a tag.
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

    fn read(name: &str, argument: Option<FieldArgument>, event: &str, view: View) -> Vec<String> {
        let access = Access::new(&FieldRef { field: fields::find(name).unwrap(), argument });
        let value = access.read(&mut Event::new(event.as_bytes()), &Context::default(), view);
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
    fn containers_without_a_value_do_not_hide_the_others() {
        let event = r#"{"requestObject":{"spec":{"runAsUser":7,"containers":[
            {"name":"a","runAsUser":1,"securityContext":{"runAsUser":3}},{"name":"b","image":"x:1","command":["sh","-c"]}]}}}"#;
        assert_eq!(read("ka.req.pod.containers.run_as_user", None, event, View::Real), ["3"]);
        assert_eq!(read("ka.req.pod.containers.eff_run_as_user", None, event, View::Real), ["1", "7"]);
        // The exception: to know the images of a pod is to know all of them.
        assert!(read("ka.req.pod.containers.image", None, event, View::Real).is_empty());
        assert_eq!(read("ka.req.pod.containers.command", None, event, View::Real), ["sh -c"]);
        let second = Some(FieldArgument::Index(1));
        assert_eq!(read("ka.req.pod.containers.name", second, event, View::Real), ["b"]);
    }

    #[test]
    fn conditions_see_what_outputs_hide() {
        let event = r#"{"requestURI":"/a?token=loot","requestObject":{"data":{"password":"loot"}}}"#;
        let key = |key: &str| Some(FieldArgument::Key(key.to_owned()));
        for (name, argument, hidden) in [
            ("ka.req.configmap.obj", None, r#"{"password":"<redacted>"}"#),
            ("jevt.value", key("/requestObject/data/password"), "<redacted>"),
            ("ka.uri.param", key("token"), "<redacted>"),
            ("ka.uri", None, "/a?token=<redacted>"),
        ] {
            assert!(read(name, argument.clone(), event, View::Real)[0].contains("loot"));
            assert_eq!(read(name, argument, event, View::Shown), [hidden]);
        }
        // What a condition has read already is not shown for that.
        let patch = "/annotations/patch.webhook.admission.k8s.io~1round_0_index_0";
        for pointer in [patch, "/annotations", ""] {
            assert!(
                !Access::new(&FieldRef {
                    field: fields::find("jevt.value").unwrap(),
                    argument: key(pointer)
                })
                .is_plain()
            );
        }
        for name in ["jevt.obj", "evt.plugininfo"] {
            assert!(!read(name, None, event, View::Shown)[0].contains("loot"));
        }
    }
}
