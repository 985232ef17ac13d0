//! Secrets in the request and response objects of an event.
//!
//! Takes an object in any of the forms that the apiserver returns (a secret, a list, a table, only metadata, a watch event) or that other
//! tools log (`kind: List`, JSON as a string), and returns each secret in it as a [`SecretView`].

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use super::content::{ObjectParts, has_registry_credential, is_credential_type, last_applied};
use super::docker_config::DATA_KEYS;
use super::evidence::Evidence;
use super::login::decode_base64;
use super::{borrowed_text, text};
use crate::detection::audit::json::{Raw, Type};

/// What one object shows of a secret.
#[derive(Debug)]
pub(super) struct SecretView<'e> {
    raw: Raw<'e>,
    pub(super) name: Option<Cow<'e, str>>,
    pub(super) namespace: Option<Cow<'e, str>>,
    /// Its type, from a table cell if the object does not contain it.
    secret_type: Option<Raw<'e>>,
    parts: ObjectParts<'e>,
    /// The object that `kubectl apply` stored in an annotation, which is part of the metadata.
    applied: Option<Cow<'e, [u8]>>,
    has_content: OnceCell<bool>,
}

impl<'e> SecretView<'e> {
    pub(super) fn of(object: Raw<'e>) -> Self {
        let [metadata, data, string_data, binary_data, secret_type] =
            object.get_all(["metadata", "data", "stringData", "binaryData", "type"]);
        Self::of_parts(object, ObjectParts { metadata, data, string_data, binary_data }, secret_type)
    }

    fn of_parts(raw: Raw<'e>, parts: ObjectParts<'e>, secret_type: Option<Raw<'e>>) -> Self {
        let [name, namespace, annotations] = parts
            .metadata
            .map(|metadata| metadata.get_all(["name", "namespace", "annotations"]))
            .unwrap_or_default();
        SecretView {
            raw,
            name: borrowed_text(name).filter(|name| !name.is_empty()),
            namespace: borrowed_text(namespace).filter(|namespace| !namespace.is_empty()),
            secret_type,
            applied: annotations.and_then(last_applied),
            parts,
            has_content: OnceCell::new(),
        }
    }

    /// A table row, whose cells are name, type, number of keys and age.
    fn of_row(row: Raw<'e>) -> Self {
        let [object, cells] = row.get_all(["object", "cells"]);
        let cell = |at: usize| cells.and_then(|cells| cells.items().map_while(Result::ok).nth(at));
        let mut secret = SecretView::of(object.filter(|object| object.kind() == Type::Object).unwrap_or(row));
        secret.name = secret.name.or_else(|| borrowed_text(cell(0)));
        secret.secret_type = secret.secret_type.or_else(|| cell(1));
        secret
    }

    pub(super) fn raw(&self) -> Raw<'e> {
        self.raw
    }

    /// Returns its type, if it is shown.
    pub(super) fn type_name(&self) -> Option<String> {
        text(self.secret_type)
    }

    pub(super) fn shows_type(&self) -> bool {
        self.secret_type.and_then(Raw::string).is_some()
    }

    /// Returns whether its type is that of registry credentials; none if the type is not shown.
    pub(super) fn is_of_credential_type(&self) -> Option<bool> {
        is_credential_type(self.secret_type)
    }

    fn data(&self) -> Option<Raw<'e>> {
        self.parts.data.filter(|data| data.kind() == Type::Object)
    }

    fn string_data(&self) -> Option<Raw<'e>> {
        self.parts.string_data.filter(|data| data.kind() == Type::Object)
    }

    /// Returns whether the object has data, even if empty.
    pub(super) fn shows_data(&self) -> bool {
        self.data().is_some() || self.string_data().is_some()
    }

    /// Returns whether the object hands over data, directly or in the annotation of `kubectl apply`.
    pub(super) fn has_data(&self) -> bool {
        let has_members = |data: Option<Raw<'_>>| data.is_some_and(|data| data.members().next().is_some());
        has_members(self.data()) || has_members(self.string_data()) || self.applied_has_content()
    }

    /// Returns whether its data is a registry credential.
    pub(super) fn has_content(&self) -> bool {
        *self.has_content.get_or_init(|| has_registry_credential(&self.parts) || self.applied_has_content())
    }

    fn applied_has_content(&self) -> bool {
        self.applied.as_ref().is_some_and(|applied| {
            DATA_KEYS.iter().any(|key| memchr::memmem::find(applied, key.as_bytes()).is_some())
                || Raw::first(applied).is_ok_and(|applied| has_registry_credential(&ObjectParts::of(applied)))
        })
    }

    /// Returns what the object itself reveals about being a registry credential.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        // The type comes last and may be missing from a truncated line.
        let has_key = || self.data().is_some_and(|data| DATA_KEYS.iter().any(|key| data.get(key).is_some()));
        match self.is_of_credential_type() {
            Some(true) => Some(Evidence::Type),
            None if has_key() => Some(Evidence::Type),
            _ => self.has_content().then_some(Evidence::Content),
        }
    }

    /// Returns whether all data in another view of the secret is also in this one.
    pub(super) fn includes_data_of(&self, other: &SecretView<'_>) -> bool {
        let own = by_key(self.data());
        let own_plain = by_key(self.string_data());
        let is_included = |(key, value): (&Vec<u8>, &Raw<'_>)| {
            own.get(key).is_some_and(|own| own.text() == value.text())
                || own_plain
                    .get(key)
                    .is_some_and(|own| decode_base64(Some(*value)).is_some_and(|value| *own.text() == *value))
        };
        by_key(other.data()).iter().all(is_included)
            && (!other.applied_has_content() || other.applied == self.applied)
    }
}

fn by_key(data: Option<Raw<'_>>) -> HashMap<Vec<u8>, Raw<'_>> {
    let members = data.into_iter().flat_map(Raw::members).map_while(Result::ok);
    members.map(|(key, value)| (key.text().into_owned(), value)).collect()
}

/// Calls a function with each secret of an object, which is read once.
pub(super) fn for_each_secret<'e>(object: Raw<'e>, mut each: impl FnMut(&SecretView<'e>)) {
    const KEYS: [&str; 9] =
        ["kind", "items", "rows", "object", "metadata", "data", "stringData", "binaryData", "type"];
    let (found, cut) = object.get_all_or_cut(KEYS);
    let [kind, items, rows, inner, metadata, data, string_data, binary_data, secret_type] = found;
    if super::is(kind, "Status") {
        return;
    }
    // A list that was truncated before its items is not a secret.
    let mut is_list = items.is_some()
        || rows.is_some()
        || kind.is_some_and(|kind| {
            let kind = kind.text();
            kind.ends_with(b"List") || *kind == *b"Table"
        });
    // Truncated arrays are read as far as they are available.
    let elements = |array: Option<Raw<'e>>, name: &str| {
        let cut = cut.filter(|(at, _)| KEYS[*at] == name).map(|(_, value)| value);
        array.or(cut).into_iter().flat_map(Raw::items).map_while(Result::ok)
    };
    for item in elements(items, "items") {
        is_list = true;
        each(&SecretView::of(item));
    }
    for row in elements(rows, "rows") {
        is_list = true;
        each(&SecretView::of_row(row));
    }
    if is_list {
        return;
    }
    match inner.filter(|inner| inner.kind() == Type::Object) {
        // A watch event.
        Some(inner) if metadata.is_none() => each(&SecretView::of(inner)),
        _ => {
            let parts = ObjectParts { metadata, data, string_data, binary_data };
            each(&SecretView::of_parts(object, parts, secret_type));
        }
    }
}

/// Returns whether an object has one of the supported forms, so that secrets that it does not show were not handed over. The content of
/// other kinds is unknown (`runtime.Unknown` contains the bytes of an object in another encoding).
pub(super) fn is_known_form(object: Raw<'_>) -> bool {
    let [kind, items, rows, inner, metadata] =
        object.get_all(["kind", "items", "rows", "object", "metadata"]);
    let has_parts = || [items, rows, inner, metadata].iter().any(Option::is_some);
    match kind.map(Raw::text) {
        None => has_parts(),
        Some(kind) => {
            kind.is_empty() && has_parts()
                || kind.ends_with(b"List")
                || matches!(
                    &*kind,
                    b"Secret" | b"ConfigMap" | b"Status" | b"Table" | b"PartialObjectMetadata"
                )
        }
    }
}

/// Returns the JSON in a string, since some tools log objects as strings.
pub(super) fn unquoted(object: Option<Raw<'_>>) -> Option<Vec<u8>> {
    let text = object?.string()?;
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'[')).then(|| text.into_owned())
}
