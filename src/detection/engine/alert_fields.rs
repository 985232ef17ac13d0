//! The scalar fields that every alert has, whatever its rule and its output say.
//!
//! Takes what an event exposed and what it asked for; returns one string for each field, so that receivers that drop lists and objects
//! (chat, paging, alert managers, label sets of log stores) still show who read which credential. Values are redacted and at most
//! [`MAX_LEN`] bytes long.

use super::value::Text;
use crate::detection::audit::json::Raw;
use crate::detection::audit::redact::Redactor;
use crate::detection::registry::{Exposure, ExposureKind};
use crate::text::escape::push_json_string;

/// Maximum length of a value in bytes. Names of namespaces, secrets and hosts have at most 253 characters.
const MAX_LEN: usize = 1024;

/// Member of a redacted head that holds the fields.
const SAVED: &str = "pullwatch";

/// The scalar fields of one event, without the actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AlertFields {
    /// `namespace/name` of the credential with the strongest evidence, and the number of others.
    pub(super) credential: Option<String>,
    /// Namespace of the request, or that of its only credential.
    pub(super) namespace: Option<String>,
    /// The first of the registries that the credentials are for, and the number of others.
    pub(super) registry: Option<String>,
    pub(super) exposure: ExposureKind,
    pub(super) verb: Option<String>,
}

impl AlertFields {
    pub(super) fn new(
        exposure: &Exposure,
        namespace: Option<String>,
        verb: Option<String>,
        redactor: Redactor<'_>,
    ) -> Self {
        let count = usize::try_from(exposure.count).unwrap_or(usize::MAX);
        let mut fields = AlertFields {
            credential: first_of(exposure.secrets.iter().map(String::as_bytes), count, redactor),
            namespace: namespace.filter(|namespace| !namespace.is_empty()).map(clip),
            registry: first_of(
                exposure.logins.hosts.iter().map(String::as_bytes),
                exposure.logins.hosts.len(),
                redactor,
            ),
            exposure: exposure.kind,
            verb: verb.map(clip),
        };
        fields.fill_namespace(count);
        fields
    }

    /// Takes the credentials that an event is about, if it exposed none: those that a workload mounts, or those held by the pod that a user
    /// enters.
    pub(super) fn add_referenced(&mut self, credentials: &[Text<'_>], redactor: Redactor<'_>) {
        if self.credential.is_none() {
            self.credential = first_of(credentials.iter().map(AsRef::as_ref), credentials.len(), redactor);
            self.fill_namespace(credentials.len());
        }
    }

    fn fill_namespace(&mut self, credentials: usize) {
        if self.namespace.is_none() && credentials == 1 {
            let namespace =
                self.credential.as_deref().and_then(|name| name.split_once('/')).map(|(first, _)| first);
            self.namespace = namespace.filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        }
    }

    /// Appends the fields that cannot be derived from the head of an event, as an additional member of the head.
    pub(super) fn save(&self, head: &mut Vec<u8>) {
        let Some(credential) = &self.credential else { return };
        head.extend_from_slice(
            format!(",\"{SAVED}\":{{\"exposure\":\"{}\"", self.exposure.name()).as_bytes(),
        );
        for (name, value) in [("credential", Some(credential)), ("registry", self.registry.as_ref())] {
            if let Some(value) = value {
                head.extend_from_slice(format!(",\"{name}\":").as_bytes());
                push_json_string(value.as_bytes(), head);
            }
        }
        head.push(b'}');
    }

    /// Reads what [`save`](Self::save) wrote. The head may come from a topic that others can write to, so it is untrusted.
    pub(super) fn restore(&mut self, head: &[u8]) {
        let Some(saved) = Raw::first(head).ok().and_then(|head| head.get(SAVED)) else { return };
        let text = |key: &str| {
            let text = saved.get(key).and_then(Raw::string)?;
            Some(clip(String::from_utf8_lossy(&text).into_owned()))
        };
        let Some(credential) = text("credential") else { return };
        self.credential = Some(credential);
        self.registry = text("registry");
        if let Some(kind) = text("exposure").and_then(|word| ExposureKind::parse(&word)) {
            self.exposure = kind;
        }
    }

    /// Calls a function with the name and the value of each field.
    pub(super) fn for_each<'f>(
        &'f self,
        actor: &'f str,
        mut take: impl FnMut(&'static str, Option<&'f str>),
    ) {
        take("actor", Some(actor));
        take("credential", self.credential.as_deref());
        take("namespace", self.namespace.as_deref());
        take("registry_host", self.registry.as_deref());
        take("exposure", Some(self.exposure.name()));
        take("verb", self.verb.as_deref());
    }
}

/// Returns the first of several names, and the number of others.
fn first_of<'t>(
    mut names: impl Iterator<Item = &'t [u8]>,
    count: usize,
    redactor: Redactor<'_>,
) -> Option<String> {
    let name = redactor.name(names.next()?.into());
    let name = clip(String::from_utf8_lossy(&name).into_owned());
    Some(match count {
        0 | 1 => name,
        _ => format!("{name} (+{} more)", count - 1),
    })
}

/// Truncates a text to [`MAX_LEN`] with a visible marker.
fn clip(mut text: String) -> String {
    if text.len() > MAX_LEN {
        let end = (0..=MAX_LEN).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::detection::audit::redact::{RedactionKey, ShowList};

    static NO_PATHS: ShowList = ShowList::EMPTY;

    fn fields(secrets: &[&str], count: u64, namespace: Option<&str>) -> AlertFields {
        let exposure = Exposure {
            kind: ExposureKind::Payload,
            secrets: secrets.iter().map(ToString::to_string).collect(),
            count,
            ..Exposure::default()
        };
        let key = RedactionKey::default();
        let redactor = Redactor::new(&key, &NO_PATHS);
        AlertFields::new(&exposure, namespace.map(str::to_owned), Some("get".to_owned()), redactor)
    }

    #[test]
    fn several_credentials_become_the_first_and_a_count() {
        assert_eq!(fields(&[], 0, None).credential, None);
        let one = fields(&["prod/regcred"], 1, None);
        assert_eq!(one.credential.as_deref(), Some("prod/regcred"));
        assert_eq!(one.namespace.as_deref(), Some("prod"));
        let many = fields(&["prod/regcred", "dev/regcred"], 5000, None);
        assert_eq!(many.credential.as_deref(), Some("prod/regcred (+4999 more)"));
        assert_eq!(many.namespace, None);
    }

    #[test]
    fn fields_survive_in_the_head_of_an_event() {
        let fields = fields(&["prod/reg\"cred"], 1, None);
        let mut head = b"{\"verb\":\"get\"".to_vec();
        fields.save(&mut head);
        head.push(b'}');
        let mut restored = AlertFields { namespace: fields.namespace.clone(), ..AlertFields::default() };
        restored.verb.clone_from(&fields.verb);
        restored.restore(&head);
        assert_eq!(restored, fields);
    }

    #[test]
    fn what_is_too_long_for_a_name_is_redacted() {
        let name = format!("prod/{}", "ä".repeat(4000));
        let credential = fields(&[&name], 1, None).credential.unwrap();
        assert!(credential.starts_with("<redacted string of 8005 bytes"), "{credential}");
    }
}
