//! One audit event, read lazily from left to right.
//!
//! Takes the text of an event; returns its members. The apiserver writes stage, verb, user, objectRef and responseStatus first, then the
//! request and response objects, and timestamps and annotations last. So an [`Event`] is a cursor: asking for a member reads up to it and
//! caches what it passes. Another order of members is read correctly and costs more time.

use std::borrow::Cow;
use std::fmt;

use super::apiserver_head::ApiserverHead;
use super::json::{Cursor, JsonError, Key, Raw};
use super::origin::{Origin, TimeSource};
use super::time;

/// A top-level member of an event that rules or detection use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Member {
    Kind,
    ApiVersion,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    ImpersonatedUser,
    SourceIps,
    UserAgent,
    ObjectRef,
    ResponseStatus,
    RequestObject,
    ResponseObject,
    RequestReceivedTimestamp,
    StageTimestamp,
    Annotations,
    /// Not a member that the apiserver writes; marks an `objectRef` that was derived from the request URI.
    DerivedTarget,
}

impl Member {
    const COUNT: usize = 19;

    /// The member with this name.
    ///
    /// Length and first letter leave one candidate: comparing with every name took 10 % of the time to read an event.
    #[inline]
    pub fn named(name: &[u8]) -> Option<Self> {
        let member = match (name.len(), name.first()?) {
            (4, b'k') => Member::Kind,
            (4, b'v') => Member::Verb,
            (4, b'u') => Member::User,
            (5, b'l') => Member::Level,
            (5, b's') => Member::Stage,
            (7, b'a') => Member::AuditId,
            (9, b's') => Member::SourceIps,
            (9, b'u') => Member::UserAgent,
            (9, b'o') => Member::ObjectRef,
            (10, b'a') => Member::ApiVersion,
            (10, b'r') => Member::RequestUri,
            (11, b'a') => Member::Annotations,
            (13, b'r') => Member::RequestObject,
            (14, b'r') if name[8] == b'S' => Member::ResponseStatus,
            (14, b'r') => Member::ResponseObject,
            (14, b's') => Member::StageTimestamp,
            (16, b'i') => Member::ImpersonatedUser,
            (24, b'r') => Member::RequestReceivedTimestamp,
            (27, b'p') => Member::DerivedTarget,
            _ => return None,
        };
        (member.name().as_bytes() == name).then_some(member)
    }

    /// The member's name in an event.
    pub const fn name(self) -> &'static str {
        match self {
            Member::Kind => "kind",
            Member::ApiVersion => "apiVersion",
            Member::Level => "level",
            Member::AuditId => "auditID",
            Member::Stage => "stage",
            Member::RequestUri => "requestURI",
            Member::Verb => "verb",
            Member::User => "user",
            Member::ImpersonatedUser => "impersonatedUser",
            Member::SourceIps => "sourceIPs",
            Member::UserAgent => "userAgent",
            Member::ObjectRef => "objectRef",
            Member::ResponseStatus => "responseStatus",
            Member::RequestObject => "requestObject",
            Member::ResponseObject => "responseObject",
            Member::RequestReceivedTimestamp => "requestReceivedTimestamp",
            Member::StageTimestamp => "stageTimestamp",
            Member::Annotations => "annotations",
            Member::DerivedTarget => "pullwatch.io/derived-target",
        }
    }
}

/// The members in the order in which the apiserver writes them (that of its Go type), each with its name as the apiserver writes it behind
/// another member.
const IN_ORDER: [(Member, &[u8]); Member::COUNT - 1] = [
    (Member::Kind, br#","kind":"#),
    (Member::ApiVersion, br#","apiVersion":"#),
    (Member::Level, br#","level":"#),
    (Member::AuditId, br#","auditID":"#),
    (Member::Stage, br#","stage":"#),
    (Member::RequestUri, br#","requestURI":"#),
    (Member::Verb, br#","verb":"#),
    (Member::User, br#","user":"#),
    (Member::ImpersonatedUser, br#","impersonatedUser":"#),
    (Member::SourceIps, br#","sourceIPs":"#),
    (Member::UserAgent, br#","userAgent":"#),
    (Member::ObjectRef, br#","objectRef":"#),
    (Member::ResponseStatus, br#","responseStatus":"#),
    (Member::RequestObject, br#","requestObject":"#),
    (Member::ResponseObject, br#","responseObject":"#),
    (Member::RequestReceivedTimestamp, br#","requestReceivedTimestamp":"#),
    (Member::StageTimestamp, br#","stageTimestamp":"#),
    (Member::Annotations, br#","annotations":"#),
];

/// Maximum number of members in a row that the apiserver omits: a request that was received has no status and no objects.
const MAX_OMITTED: usize = 3;

/// The shortest text of a member that can be oversized, in bytes.
pub(crate) const MIN_OVERSIZED_LEN: usize = 2048;

/// Members whose content a client chooses, each with the length from which its text is suspicious, in bytes. They precede `objectRef`, so a
/// long one moves `objectRef` behind the point at which a log shipper may truncate the line. Usual lengths are far below: an audit id has
/// 36 bytes, the apiserver truncates user agents to 1,036, and a long list request with a `continue` token has about 2,000.
const LENGTH_LIMITS: [(Member, usize); 5] = [
    (Member::AuditId, MIN_OVERSIZED_LEN),
    (Member::RequestUri, 4 * MIN_OVERSIZED_LEN),
    (Member::ImpersonatedUser, 4 * MIN_OVERSIZED_LEN),
    (Member::SourceIps, MIN_OVERSIZED_LEN),
    (Member::UserAgent, 2 * MIN_OVERSIZED_LEN),
];

/// The members of `objectRef` that identify an object.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct ObjectRef<'a> {
    pub api_group: Option<Raw<'a>>,
    pub resource: Option<Raw<'a>>,
    pub namespace: Option<Raw<'a>>,
    pub name: Option<Raw<'a>>,
    pub subresource: Option<Raw<'a>>,
}

/// How much of an event was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There may be more members.
    Open,
    Complete,
    Failed(JsonError),
}

/// One audit event in the text of its line. It may contain secrets: `Debug` shows only its length.
#[derive(Clone)]
pub struct Event<'a> {
    bytes: &'a [u8],
    cursor: Cursor<'a>,
    reading: Reading,
    members: [Option<Raw<'a>>; Member::COUNT],
    /// The place in [`IN_ORDER`] of the member that is expected next.
    expected: usize,
    object: Option<ObjectRef<'a>>,
    has_duplicates: bool,
    has_other_members: bool,
    origin: Origin<'a>,
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({} bytes)", self.bytes.len())
    }
}

impl<'a> Event<'a> {
    /// Creates an event whose text starts at the first byte of `bytes`. Anything after it in `bytes` is ignored.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut event = Event {
            bytes,
            cursor: Cursor::new(bytes, b'{'),
            reading: Reading::Open,
            members: [None; Member::COUNT],
            expected: 0,
            object: None,
            has_duplicates: false,
            has_other_members: false,
            origin: Origin::default(),
        };
        if let Some(head) = ApiserverHead::read(bytes) {
            event.members[Member::Kind as usize] = Some(head.kind);
            event.members[Member::ApiVersion as usize] = Some(head.api_version);
            event.members[Member::Level as usize] = Some(head.level);
            event.members[Member::AuditId as usize] = Some(head.audit_id);
            event.members[Member::Stage as usize] = Some(head.stage);
            event.cursor.continue_from(head.end);
            event.expected = Member::RequestUri as usize;
        }
        event
    }

    /// Reads members up to `wanted`, or all.
    #[inline]
    fn read_to(&mut self, wanted: Option<Member>) {
        while self.reading == Reading::Open {
            let read = match self.next_in_order() {
                Some(member) => Some(self.cursor.value().map(|value| (Some(member), value))),
                None => self.cursor.member().map(|read| read.map(|(key, value)| (named(key), value))),
            };
            match read {
                None => self.reading = Reading::Complete,
                Some(Ok((member, value))) => {
                    let member = self.insert(member, value);
                    if member.is_some() && member == wanted {
                        return;
                    }
                }
                Some(Err(error)) => self.fail(error),
            }
        }
    }

    /// Moves to the value of the next member, if it is one of those that are expected next. Otherwise the name has to be read, because it
    /// may be spelled differently.
    #[inline]
    fn next_in_order(&mut self) -> Option<Member> {
        let expected = IN_ORDER.get(self.expected..)?;
        let at = expected.iter().take(MAX_OMITTED + 1).position(|(_, name)| self.cursor.skip_name(name))?;
        self.expected += at + 1;
        Some(expected[at].0)
    }

    #[inline]
    fn insert(&mut self, member: Option<Member>, value: Raw<'a>) -> Option<Member> {
        let Some(member) = member else {
            self.has_other_members = true;
            return None;
        };
        let slot = &mut self.members[member as usize];
        if slot.is_some() {
            self.has_duplicates = true;
            return None;
        }
        *slot = Some(value);
        Some(member)
    }

    /// If the text is truncated inside an object or array, stores the available part of that value, so that rules can still read it.
    #[cold]
    fn fail(&mut self, error: JsonError) {
        self.reading = Reading::Failed(error);
        if error == JsonError::Truncated
            && let Some((name, value)) = self.cursor.cut_member()
            && let Some(member) = Member::named(name)
        {
            self.members[member as usize].get_or_insert(value);
        }
    }

    /// The value of a member. If the member is repeated, the first one.
    #[inline]
    pub fn get(&mut self, member: Member) -> Option<Raw<'a>> {
        if self.members[member as usize].is_none() && self.reading == Reading::Open {
            self.read_to(Some(member));
        }
        self.members[member as usize]
    }

    /// The value of a member as the rule language compares it: see [`Raw::text`].
    pub fn text(&mut self, member: Member) -> Option<Cow<'a, [u8]>> {
        self.get(member).map(Raw::text)
    }

    /// The value of a top-level member by name, including members without a [`Member`].
    pub fn member_by_name(&mut self, name: &str) -> Option<Raw<'a>> {
        match Member::named(name.as_bytes()) {
            Some(member) => self.get(member),
            None => Raw::assume(self.bytes).get(name),
        }
    }

    /// The value at a path of keys.
    pub fn path(&mut self, keys: &[&str]) -> Option<Raw<'a>> {
        let (first, rest) = keys.split_first()?;
        self.member_by_name(first)?.path(rest)
    }

    /// The object of the request. Empty members count as absent.
    #[inline]
    pub fn object(&mut self) -> ObjectRef<'a> {
        if let Some(object) = self.object {
            return object;
        }
        let mut object = ObjectRef::default();
        if let Some(raw) = self.get(Member::ObjectRef) {
            for (key, value) in raw.members().map_while(Result::ok) {
                // The apiserver omits empty members; other producers may not.
                if matches!(value.bytes(), b"\"\"" | b"null") {
                    continue;
                }
                let slot = match &*key.text() {
                    b"apiGroup" => &mut object.api_group,
                    b"resource" => &mut object.resource,
                    b"namespace" => &mut object.namespace,
                    b"name" => &mut object.name,
                    b"subresource" => &mut object.subresource,
                    _ => continue,
                };
                slot.get_or_insert(value);
            }
        }
        self.object = Some(object);
        object
    }

    /// Reads all members.
    ///
    /// # Errors
    ///
    /// If the text is truncated or malformed. The members before that point are available nevertheless.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        self.read_to(None);
        self.state()
    }

    /// Whether the text is well-formed as far as it was read.
    ///
    /// # Errors
    /// If the text is truncated or malformed.
    #[inline]
    pub fn state(&self) -> Result<(), JsonError> {
        match self.reading {
            Reading::Failed(error) => Err(error),
            Reading::Open | Reading::Complete => Ok(()),
        }
    }

    /// Whether other text follows the event. The event must have been read to its end.
    pub fn is_followed(&self) -> bool {
        self.reading == Reading::Complete && !self.cursor.remainder().trim_ascii().is_empty()
    }

    /// Whether a member was repeated, as far as the event was read.
    pub fn has_duplicate_members(&self) -> bool {
        self.has_duplicates
    }

    /// Whether the part that was read has members without a [`Member`], which a shipper may have added.
    pub fn has_other_members(&self) -> bool {
        self.has_other_members
    }

    /// Whether a part of the event is missing because its line was truncated, or because the apiserver removed the objects.
    pub fn is_truncated(&mut self) -> bool {
        self.finish() == Err(JsonError::Truncated)
            || self
                .path(&["annotations", "audit.k8s.io/truncated"])
                .is_some_and(|raw| raw.bytes() == b"\"true\"")
    }

    /// Whether the text ends before the object of the request is known: `objectRef` is missing, or was read from the URI.
    #[inline]
    pub(crate) fn is_truncated_before_target(&mut self) -> bool {
        if self.get(Member::ObjectRef).is_some() {
            return self.members[Member::DerivedTarget as usize].is_some();
        }
        // Requests for non-resource paths have no object either, but they have a status.
        self.get(Member::ResponseStatus).is_none() && self.finish() == Err(JsonError::Truncated)
    }

    /// Members whose text, written by a client, has a suspicious length.
    pub(crate) fn oversized(&mut self) -> impl Iterator<Item = &'static str> {
        let anomalies = self.anomalies();
        LENGTH_LIMITS
            .iter()
            .enumerate()
            .filter(move |(bit, _)| anomalies >> (bit + 1) & 1 == 1)
            .map(|(_, (member, _))| member.name())
    }

    /// Suspicious properties of the event's form, as a bit set: bit 0 if it is [truncated before its
    /// target](Self::is_truncated_before_target), and one bit for each [oversized](Self::oversized) member. 0 for nearly every event.
    #[inline]
    pub(crate) fn anomalies(&mut self) -> u8 {
        let mut anomalies = u8::from(self.is_truncated_before_target());
        if self.bytes.len() > MIN_OVERSIZED_LEN {
            if self.members[Member::RequestUri as usize].is_none() {
                // Not in the order of the apiserver, which writes all of these members before `objectRef`.
                self.read_to(None);
            }
            for (bit, (member, limit)) in LENGTH_LIMITS.iter().enumerate() {
                let len = self.members[*member as usize].map_or(0, |value| value.bytes().len());
                anomalies |= u8::from(len > *limit) << (bit + 1);
            }
        }
        anomalies
    }

    /// The text from the start of the event, as far as it is available. Text after the event may be included.
    #[inline]
    pub(crate) fn available_text(&self) -> &'a [u8] {
        self.bytes
    }

    /// The text of the event. For a truncated event, everything that the line contains.
    pub fn bytes(&mut self) -> &'a [u8] {
        match self.finish() {
            Ok(()) => &self.bytes[..self.cursor.position()],
            Err(_) => self.bytes,
        }
    }

    /// Sets what is known of the event from outside its text.
    #[inline]
    pub fn set_origin(&mut self, origin: Origin<'a>) {
        self.origin = origin;
    }

    /// Sets a time for an event without one.
    pub(crate) fn set_time(&mut self, time: Option<(i64, TimeSource)>) {
        self.origin.time = self.origin.time.or(time);
    }

    /// The name of the cluster: the annotation `cluster_name`, else the name from the wrapper or the configuration.
    pub fn cluster(&mut self) -> Option<Cow<'a, [u8]>> {
        let annotation = self.path(&["annotations", "cluster_name"]).and_then(Raw::string);
        annotation.filter(|name| !name.is_empty()).or(self.origin.cluster.map(Cow::Borrowed))
    }

    /// The time of the event in nanoseconds since 1970-01-01T00:00:00Z: `stageTimestamp`, else `requestReceivedTimestamp`, else the time
    /// known from outside its text.
    pub fn time(&mut self) -> Option<i64> {
        self.time_and_source().map(|(time, _)| time)
    }

    /// The time of the event, and its origin.
    pub fn time_and_source(&mut self) -> Option<(i64, TimeSource)> {
        let own = [
            (Member::StageTimestamp, TimeSource::Stage),
            (Member::RequestReceivedTimestamp, TimeSource::RequestReceived),
        ];
        own.into_iter()
            .find_map(|(member, source)| Some((time::parse(&self.get(member)?.string()?)?, source)))
            .or(self.origin.time)
    }
}

/// The member with this name, in any spelling.
#[inline]
fn named(key: Key<'_>) -> Option<Member> {
    Member::named(&key.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expects_members_by_the_names_of_an_event() {
        for (at, (member, name)) in IN_ORDER.into_iter().enumerate() {
            assert_eq!(member as usize, at);
            assert_eq!(name, format!(",\"{}\":", member.name()).as_bytes());
        }
    }

    /// Members that were omitted, repeated, moved or spelled otherwise are read as a walk over the object reads them.
    #[test]
    fn reads_members_in_any_order_as_a_walk_does() {
        let names =
            ["verb", "user", "v\\u0065rb", "sourceIPs", "x", "userAgent", "objectRef", "stageTimestamp"];
        for case in 0..names.len().pow(4) {
            let digits = [1, 8, 64, 512].map(|unit| case / unit % names.len());
            let members =
                digits.iter().enumerate().map(|(i, &digit)| format!("\"{}\":\"{i}\"", names[digit]));
            let text = format!("{{\"kind\":\"Event\",{}}}", members.collect::<Vec<_>>().join(","));
            let (mut event, walk) = (Event::new(text.as_bytes()), Raw::assume(text.as_bytes()));
            assert_eq!(event.finish(), Ok(()));
            for (member, _) in IN_ORDER {
                assert_eq!(
                    event.get(member).map(Raw::bytes),
                    walk.get(member.name()).map(Raw::bytes),
                    "{text}"
                );
            }
            let mut known: Vec<_> = digits
                .iter()
                .filter_map(|&digit| Member::named(names[digit].replace("\\u0065", "e").as_bytes()))
                .collect();
            assert_eq!(event.has_other_members(), known.len() < digits.len());
            known.sort_unstable_by_key(|member| *member as usize);
            let count = known.len();
            known.dedup();
            assert_eq!(event.has_duplicate_members(), known.len() < count, "{text}");
        }
    }

    #[test]
    fn any_text_has_bytes_and_no_members() {
        for text in [&b""[..], b" ", b"\n\t", b"x", b"[", b"\"", b"{"] {
            let mut event = Event::new(text);
            assert!(text.starts_with(event.bytes()), "{text:?}");
            assert_eq!(event.get(Member::Verb), None);
            assert_eq!(event.object().name, None);
        }
    }

    #[test]
    fn finds_members_in_any_order_and_spelling() {
        let mut event = Event::new(
            br#" {"objectRef" : {"name":"x","resource":"secrets"}, "v\u0065rb":"get","stage":"Panic","verb":"list"} "#,
        );
        assert_eq!(event.text(Member::Stage).unwrap(), &b"Panic"[..]);
        assert_eq!(event.text(Member::Verb).unwrap(), &b"get"[..]);
        assert_eq!(event.object().resource.unwrap().bytes(), b"\"secrets\"");
        assert_eq!(event.get(Member::User), None);
        assert!(event.has_duplicate_members());
        assert_eq!(event.finish(), Ok(()));
    }

    #[test]
    fn finds_every_member_by_its_name() {
        use Member as M;
        for member in [
            M::Kind,
            M::ApiVersion,
            M::Level,
            M::AuditId,
            M::Stage,
            M::RequestUri,
            M::Verb,
            M::User,
            M::ImpersonatedUser,
            M::SourceIps,
            M::UserAgent,
            M::ObjectRef,
            M::ResponseStatus,
            M::RequestObject,
            M::ResponseObject,
            M::RequestReceivedTimestamp,
            M::StageTimestamp,
            M::Annotations,
            M::DerivedTarget,
        ] {
            assert_eq!(Member::named(member.name().as_bytes()), Some(member));
        }
        assert_eq!(Member::named(b"kinx").or(Member::named(b"")), None);
    }

    #[test]
    fn empty_members_of_the_object_are_absent() {
        let mut event =
            Event::new(br#"{"objectRef":{"name":"","resource":"secrets","subresource":null,"apiGroup":"","namespace":"p"}}"#);
        let object = event.object();
        assert!(object.name.is_none() && object.subresource.is_none() && object.api_group.is_none());
        assert_eq!(object.namespace.unwrap().bytes(), b"\"p\"");
    }

    #[test]
    fn reads_the_beginning_of_a_truncated_event() {
        let mut event =
            Event::new(br#"{"verb":"list","responseObject":{"kind":"SecretList","items":[{"data":"#);
        assert_eq!(event.finish(), Err(JsonError::Truncated));
        let kind = event.path(&["responseObject", "kind"]).unwrap();
        assert_eq!(kind.bytes(), b"\"SecretList\"");
        assert_eq!(event.get(Member::Annotations), None);
    }

    #[test]
    fn reports_a_malformed_event() {
        assert_eq!(Event::new(br#"{"verb":"list" oops}"#).finish(), Err(JsonError::Syntax));
        assert_eq!(Event::new(b"{verb}").finish(), Err(JsonError::Syntax));
        assert_eq!(Event::new(b"{}").finish(), Ok(()));
    }
}
