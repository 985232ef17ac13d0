//! The form in which an inventory is stored and exported: JSON that [`import`] reads again without loss.

use serde::{Deserialize, Serialize};

use super::{Error, Origin, Summary, line_at};
use crate::detection::audit::time;
use crate::detection::registry::Inventory;
use crate::detection::registry::inventory::{
    DeclaredNode, DeclaredSecret, InventoryFull, checked_type, insert, is_name,
};

/// `kind` of the document. No Kubernetes object has it.
const KIND: &str = "PullwatchInventory";

const API_VERSION: &str = "pullwatch/v1";

/// Maximum number of hosts, user names, verbs or secrets of one entry.
const MAX_ITEMS: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: String,
    api_version: String,
    #[serde(default)]
    sources: Vec<Source>,
    #[serde(default)]
    secrets: Vec<Secret>,
    #[serde(default)]
    pods: Vec<ExportedObject>,
    #[serde(default)]
    roles: Vec<ExportedObject>,
    #[serde(default)]
    namespaces: Vec<ExportedObject>,
    #[serde(default)]
    nodes: Vec<ExportedObject>,
}

#[derive(Serialize, Deserialize)]
struct Source {
    name: String,
    time: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize, Deserialize)]
#[allow(clippy::struct_field_names, reason = "`type` is a keyword")]
struct Secret {
    namespace: String,
    name: String,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    secret_type: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    content: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    referenced: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    declared: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    usernames: Vec<String>,
    #[serde(default)]
    source: usize,
}

/// A pod with its secrets, a role or binding with what it grants, a namespace with its Pod Security level, or a node with its addresses.
#[derive(Serialize, Deserialize)]
struct ExportedObject {
    key: String,
    values: Vec<String>,
    #[serde(default)]
    source: usize,
}

/// Writes an inventory.
pub fn export(inventory: &Inventory) -> String {
    let sources = inventory.origins.iter();
    let secret = |(key, secret): (&str, &DeclaredSecret)| {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        Secret {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            secret_type: secret.secret_type.clone(),
            content: secret.has_content,
            referenced: secret.is_referenced,
            declared: secret.is_asserted,
            hosts: secret.hosts.clone(),
            usernames: secret.usernames.clone(),
            source: secret.origin,
        }
    };
    let entry = |key: &str, values: Vec<String>, source: usize| ExportedObject {
        key: key.to_owned(),
        values,
        source,
    };
    let document = Document {
        kind: KIND.to_owned(),
        api_version: API_VERSION.to_owned(),
        sources: sources
            .map(|origin| Source { name: origin.source.clone(), time: rfc3339(origin.time) })
            .collect(),
        secrets: inventory.secrets().map(secret).collect(),
        pods: inventory
            .pods
            .iter()
            .map(|(key, pod)| entry(key, pod.value.iter().map(ToString::to_string).collect(), pod.origin))
            .collect(),
        roles: inventory
            .roles
            .iter()
            .map(|(key, role)| entry(key, role.value.clone(), role.origin))
            .collect(),
        namespaces: inventory
            .namespaces
            .iter()
            .map(|(key, label)| entry(key, vec![label.value.clone()], label.origin))
            .collect(),
        nodes: inventory
            .nodes
            .iter()
            .map(|(key, node)| {
                entry(key, node.value.addresses.iter().map(ToString::to_string).collect(), node.origin)
            })
            .collect(),
    };
    // Serialization only fails for maps with keys that are not strings, of which there are none.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn rfc3339(time: i64) -> String {
    let mut text = Vec::new();
    time::write_rfc3339(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

/// Returns whether a text is an export. Its kind comes first.
pub(super) fn is_export(text: &str) -> bool {
    let head = text.trim_ascii_start().strip_prefix('{').map(str::trim_ascii_start);
    let value = head.and_then(|head| head.strip_prefix("\"kind\"")).map(str::trim_ascii_start);
    let value = value.and_then(|value| value.strip_prefix(':')).map(str::trim_ascii_start);
    value.is_some_and(|value| value.strip_prefix('"').is_some_and(|value| value.starts_with(KIND)))
}

/// Adds an export to an inventory.
pub(super) fn import(text: &str, inventory: &mut Inventory) -> Result<Summary, Error> {
    let document: Document = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Error::new(error.line().max(1), format!("not a valid inventory: {message}"))
    })?;
    if document.api_version != API_VERSION {
        let message = format!("unknown version of the inventory: expected `{API_VERSION}`");
        return Err(Error::new(
            line_at(text.as_bytes(), text.find("apiVersion").unwrap_or_default()),
            message,
        ));
    }
    let mut read = Inventory::default();
    for source in document.sources {
        let time = time::parse(source.time.as_bytes()).ok_or_else(|| {
            Error::new(1, "invalid time of a source: expected RFC 3339, such as 2026-01-01T00:00:00Z")
        })?;
        // Not with `add_origin`, since the indexes of equal sources must stay valid.
        read.origins.push(Origin { source: source.name, time });
    }
    let mut summary = Summary::default();
    let full = |full: InventoryFull| Error::full(1, full);
    for secret in document.secrets {
        if !is_name(&secret.namespace) || !is_name(&secret.name) {
            summary.ignored += 1;
            continue;
        }
        summary.objects += 1;
        let key = format!("{}/{}", secret.namespace, secret.name);
        let bounded = |mut texts: Vec<String>| {
            texts.truncate(MAX_ITEMS);
            texts
        };
        let entry = DeclaredSecret {
            secret_type: secret.secret_type.and_then(checked_type),
            has_content: secret.content,
            is_referenced: secret.referenced,
            is_asserted: secret.declared,
            hosts: bounded(secret.hosts),
            usernames: bounded(secret.usernames),
            origin: secret.source,
        };
        read.add_secret(&key, entry).map_err(full)?;
    }
    for mut pod in document.pods {
        pod.values.truncate(MAX_ITEMS);
        let secrets = pod.values.into_iter().map(String::into_boxed_str).collect();
        insert(&mut read.pods, "pods", &pod.key, secrets, pod.source).map_err(full)?;
        summary.objects += 1;
    }
    for mut role in document.roles {
        role.values.truncate(MAX_ITEMS);
        insert(&mut read.roles, "roles and bindings", &role.key, role.values, role.source).map_err(full)?;
        summary.objects += 1;
    }
    for namespace in document.namespaces {
        let label = namespace.values.into_iter().next().unwrap_or_default();
        insert(&mut read.namespaces, "namespaces", &namespace.key, label, namespace.source).map_err(full)?;
        summary.objects += 1;
    }
    for exported in document.nodes {
        let mut node = DeclaredNode::default();
        exported.values.iter().for_each(|address| node.add_address(address));
        if !is_name(&exported.key) || node.addresses.is_empty() {
            summary.ignored += 1;
            continue;
        }
        insert(&mut read.nodes, "nodes", &exported.key, node, exported.source).map_err(full)?;
        summary.objects += 1;
    }
    inventory.merge(read).map_err(full)?;
    Ok(summary)
}
