//! Extracts the scalar fields and static labels from the JSON of a stored alert.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::detection::alert::{RESERVED_MEMBERS, StoredAlert};

/// The fields that every alert has, and its static labels. A field without a value is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) credential: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) registry: Option<String>,
    pub(crate) exposure: Option<String>,
    pub(crate) verb: Option<String>,
    pub(crate) cluster: Option<String>,
    /// Static labels as names and values, without `cluster`.
    pub(crate) labels: Vec<(String, String)>,
}

impl Fields {
    /// Reads the fields of an alert. Alerts stored by an earlier version may have none.
    pub(crate) fn of(alert: &StoredAlert) -> Self {
        serde_json::Deserializer::from_slice(&alert.json).deserialize_map(FieldsVisitor).unwrap_or_default()
    }

    /// The cluster and the static labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let cluster = self.cluster.iter().map(|cluster| ("cluster", cluster.as_str()));
        cluster.chain(self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

struct FieldsVisitor;

/// A member, if it is a string.
struct MaybeText(Option<String>);

impl<'de> serde::Deserialize<'de> for MaybeText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = MaybeText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<MaybeText, E> {
        Ok(MaybeText(Some(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<MaybeText, E> {
        Ok(MaybeText(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<MaybeText, E> {
        Ok(MaybeText(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<MaybeText, E> {
        Ok(MaybeText(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<MaybeText, E> {
        Ok(MaybeText(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<MaybeText, E> {
        Ok(MaybeText(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MaybeText, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(MaybeText(None))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<MaybeText, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(MaybeText(None))
    }
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an alert")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            let MaybeText(value) = map.next_value()?;
            match name.as_str() {
                "credential" => fields.credential = value,
                "namespace" => fields.namespace = value,
                "registry_host" => fields.registry = value,
                "exposure" => fields.exposure = value,
                "verb" => fields.verb = value,
                "cluster" => fields.cluster = value,
                name if RESERVED_MEMBERS.contains(&name) => {}
                name => fields.labels.extend(value.map(|value| (name.to_owned(), value))),
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::daemon::sink::tests::alert;

    #[test]
    fn unknown_texts_are_labels() {
        let json = r#"{"hostname":"n","output_fields":{"team":"x"},"tags":["a"],"actor":"a","credential":"p/s","namespace":null,"registry_host":"ghcr.io","exposure":"payload","verb":"get","cluster":"c","team":"t","throttled":3}"#;
        let fields = Fields::of(&StoredAlert { json: json.into(), ..alert(1) });
        assert_eq!(fields.credential.as_deref(), Some("p/s"));
        assert_eq!((fields.namespace.as_deref(), fields.registry.as_deref()), (None, Some("ghcr.io")));
        assert_eq!(fields.labels().collect::<Vec<_>>(), [("cluster", "c"), ("team", "t")]);
        assert_eq!(Fields::of(&StoredAlert { json: b"[".to_vec(), ..alert(1) }), Fields::default());
    }
}
