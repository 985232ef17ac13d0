//! Adds objects to an inventory.
//!
//! Takes objects as the apiserver returns them, one by one, and reads them with the code that reads the objects of events.

use super::cluster_state::{MARK, MAX_SECRETS_PER_POD};
use super::content::logins_of;
use super::inventory::{
    DeclaredNode, DeclaredSecret, Inventory, InventoryFull, checked_type, insert, is_name,
};
use super::secret_view::{SecretView, for_each_secret};
use super::{grants, pod_security, references, text};
use crate::detection::audit::json::{Raw, Type};

/// Maximum number of hosts, and of user names, of one secret.
const MAX_LOGINS: usize = 32;

/// Maximum nesting of lists in lists.
const MAX_LIST_DEPTH: usize = 4;

/// What kind of object was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddResult {
    /// Entries were added, or it is of a kind that has some.
    Known,
    /// It is of a kind that contains nothing of interest.
    Ignored,
    /// It has no kind, and is not a list.
    NoKind,
}

/// Adds objects to an inventory.
#[derive(Debug)]
pub(crate) struct Builder<'i> {
    pub(crate) inventory: &'i mut Inventory,
    pub(crate) origin: usize,
    /// The namespace of objects that do not state one.
    pub(crate) namespace: &'i str,
    /// Whether secrets of an unknown type are registry credentials.
    pub(crate) asserts_credentials: bool,
    /// Number of objects read, without those of kinds that contain nothing of interest.
    pub(crate) objects: u64,
    pub(crate) ignored: u64,
    /// Number of secrets of which only the name is known.
    pub(crate) untyped: u64,
}

impl Builder<'_> {
    /// Adds an object, or all objects of a list. Bindings must be added after the roles that they bind.
    pub(crate) fn add(&mut self, object: Raw<'_>, phase: ImportPass) -> Result<AddResult, InventoryFull> {
        self.add_item(object, "", phase, MAX_LIST_DEPTH)
    }

    fn add_item(
        &mut self,
        object: Raw<'_>,
        kind_of_list: &str,
        phase: ImportPass,
        depth: usize,
    ) -> Result<AddResult, InventoryFull> {
        let own_kind = text(object.get("kind")).unwrap_or_default();
        // The items of a typed list have no kind of their own.
        let kind = if own_kind.is_empty() { kind_of_list } else { &*own_kind };
        let items = object.get("items").filter(|items| items.kind() == Type::Array);
        if let Some(items) = items.filter(|_| depth > 0 && (kind.ends_with("List") || kind.is_empty())) {
            let kind_of_items = kind.strip_suffix("List").unwrap_or_default().to_owned();
            for item in items.items().map_while(Result::ok) {
                self.add_item(item, &kind_of_items, phase, depth - 1)?;
            }
            return Ok(AddResult::Known);
        }
        if kind.is_empty() && object.get("rows").is_none() {
            return Ok(AddResult::NoKind);
        }
        let is_binding = matches!(kind, "RoleBinding" | "ClusterRoleBinding");
        if is_binding != (phase == ImportPass::Bindings) {
            return Ok(AddResult::Known);
        }
        let [namespace, name] = ["namespace", "name"].map(|key| text(object.path(&["metadata", key])));
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| self.namespace.to_owned());
        let name = name.unwrap_or_default();
        let added = match kind {
            "Secret" | "Table" => {
                self.add_secrets(object, &namespace)?;
                return Ok(AddResult::Known);
            }
            "SealedSecret" | "ExternalSecret" => self.add_generated_secret(object, &namespace, &name)?,
            "Role" => self.add_role(&namespace, &name, grants::declared_grants(object))?,
            "ClusterRole" => self.add_role("", &name, grants::declared_grants(object))?,
            "RoleBinding" => self.add_binding(object, &namespace, &name)?,
            "ClusterRoleBinding" => self.add_binding(object, "", &name)?,
            "Namespace" if is_name(&name) => {
                let label = pod_security::enforced_label(object);
                insert(&mut self.inventory.namespaces, "namespaces", &name, label, self.origin)?;
                true
            }
            "Node" => self.add_node(&name, &node(object))?,
            _ => self.add_references(object, kind, &namespace, &name)?,
        };
        if added {
            self.objects += 1;
        } else {
            self.ignored += 1;
        }
        Ok(if added { AddResult::Known } else { AddResult::Ignored })
    }

    /// Adds a secret, or those of a table that the apiserver returned.
    fn add_secrets(&mut self, object: Raw<'_>, namespace: &str) -> Result<(), InventoryFull> {
        let mut result = Ok(());
        for_each_secret(object, |secret| {
            if result.is_ok() {
                result = self.add_view(secret, namespace);
            }
        });
        result
    }

    fn add_view(&mut self, view: &SecretView<'_>, namespace: &str) -> Result<(), InventoryFull> {
        let name = view.name.clone().unwrap_or_default();
        let namespace = view.namespace.as_deref().unwrap_or(namespace);
        let evidence = view.evidence();
        let (hosts, usernames) = evidence.map(|_| logins(view.raw())).unwrap_or_default();
        let secret = DeclaredSecret {
            secret_type: view.type_name().and_then(checked_type),
            has_content: evidence.is_some() && view.is_of_credential_type() != Some(true),
            hosts,
            usernames,
            ..DeclaredSecret::default()
        };
        self.add_named(namespace, &name, secret)
    }

    /// Adds a secret whose type may be known.
    pub(crate) fn add_named(
        &mut self,
        namespace: &str,
        name: &str,
        mut secret: DeclaredSecret,
    ) -> Result<(), InventoryFull> {
        if !is_name(name) || !is_name(namespace) {
            self.ignored += 1;
            return Ok(());
        }
        self.objects += 1;
        if secret.secret_type.is_none() && !secret.has_content && !secret.is_referenced {
            secret.is_asserted |= self.asserts_credentials;
            self.untyped += u64::from(!secret.is_asserted);
        }
        secret.origin = self.origin;
        self.inventory.add_secret(&format!("{namespace}/{name}"), secret)
    }

    /// Adds the secret that a controller creates from a custom resource, if it has the type of a registry credential.
    fn add_generated_secret(
        &mut self,
        object: Raw<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<bool, InventoryFull> {
        let path: &[&str] = match text(object.get("kind")).as_deref() {
            Some("ExternalSecret") => &["spec", "target", "template", "type"],
            _ => &["spec", "template", "type"],
        };
        let Some(secret_type) = text(object.path(path)).and_then(checked_type) else { return Ok(false) };
        let target = text(object.path(&["spec", "target", "name"])).filter(|target| is_name(target));
        let secret = DeclaredSecret { secret_type: Some(secret_type), ..DeclaredSecret::default() };
        let count = self.objects;
        self.add_named(namespace, target.as_deref().unwrap_or(name), secret)?;
        let is_added = self.objects > count;
        self.objects = count;
        Ok(is_added)
    }

    fn add_role(&mut self, namespace: &str, name: &str, grants: Vec<String>) -> Result<bool, InventoryFull> {
        if !is_name(name) || !namespace.is_empty() && !is_name(namespace) {
            return Ok(false);
        }
        let key = format!("{namespace}/{name}");
        insert(&mut self.inventory.roles, "roles and bindings", &key, grants, self.origin)?;
        Ok(true)
    }

    fn add_binding(&mut self, object: Raw<'_>, namespace: &str, name: &str) -> Result<bool, InventoryFull> {
        let roles = &self.inventory.roles;
        let known = |key: &str| roles.get(key).map(|role| role.value.clone());
        let Some(grants) = grants::declared_binding(object, namespace, known) else { return Ok(true) };
        self.add_role(&grants::binding_namespace(namespace), name, grants)
    }

    /// Adds a node with its addresses. Returns false if it has none, as in a manifest.
    pub(crate) fn add_node(&mut self, name: &str, node: &DeclaredNode) -> Result<bool, InventoryFull> {
        if !is_name(name) || node.addresses.is_empty() {
            return Ok(false);
        }
        insert(&mut self.inventory.nodes, "nodes", name, node.clone(), self.origin)?;
        Ok(true)
    }

    /// Adds the secrets named by a pod, a workload, a service account or a volume. Returns false if it names no secret and is of an unknown
    /// kind.
    fn add_references(
        &mut self,
        object: Raw<'_>,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool, InventoryFull> {
        let found = references::declared(object);
        for secret in &found.image_pull {
            if is_name(secret) && is_name(namespace) {
                let secret_entry =
                    DeclaredSecret { is_referenced: true, origin: self.origin, ..DeclaredSecret::default() };
                self.inventory.add_secret(&format!("{namespace}/{secret}"), secret_entry)?;
            }
        }
        if kind == "Pod" && is_name(name) && is_name(namespace) {
            let secrets: Vec<Box<str>> = self.secrets_of_pod(namespace, found.mounted);
            if !secrets.is_empty() {
                let key = format!("{namespace}/{name}");
                insert(&mut self.inventory.pods, "pods", &key, secrets.into(), self.origin)?;
            }
        }
        let is_of_interest = matches!(
            kind,
            "Pod"
                | "ServiceAccount"
                | "PodTemplate"
                | "ReplicationController"
                | "ReplicaSet"
                | "Deployment"
                | "StatefulSet"
                | "DaemonSet"
                | "Job"
                | "CronJob"
                | "PersistentVolume"
        );
        Ok(is_of_interest || !found.image_pull.is_empty())
    }

    /// Credentials come first, as for learned pods: the number per pod is bounded.
    fn secrets_of_pod(&self, namespace: &str, mounted: Vec<Box<str>>) -> Vec<Box<str>> {
        let is_credential = |name: &str| {
            let secret = self.inventory.secret(&format!("{namespace}/{name}"));
            name.starts_with(MARK) || secret.and_then(DeclaredSecret::is_credential) == Some(true)
        };
        let (mut secrets, others): (Vec<_>, Vec<_>) =
            mounted.into_iter().filter(|name| is_name(name)).partition(|name| is_credential(name));
        secrets.extend(others);
        if secrets.len() > MAX_SECRETS_PER_POD {
            secrets.truncate(MAX_SECRETS_PER_POD - 1);
            secrets.push("*".into());
        }
        secrets
    }
}

/// The pass over the input, one of two, in which an object is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportPass {
    Objects,
    Bindings,
}

/// The addresses in the status of a node. Its host names do not reveal where its requests come from.
fn node(object: Raw<'_>) -> DeclaredNode {
    let mut node = DeclaredNode::default();
    let addresses = object.path(&["status", "addresses"]);
    for item in addresses.into_iter().flat_map(Raw::items).map_while(Result::ok) {
        if matches!(text(item.get("type")).as_deref(), Some("InternalIP" | "ExternalIP")) {
            node.add_address(&text(item.get("address")).unwrap_or_default());
        }
    }
    node
}

/// The registry hosts and user names of a secret that contains its data.
fn logins(secret: Raw<'_>) -> (Vec<String>, Vec<String>) {
    let (mut hosts, mut usernames) = (Vec::new(), Vec::new());
    for login in logins_of(secret, MAX_LOGINS) {
        for (text, texts) in [(login.host, &mut hosts), (login.username, &mut usernames)] {
            if let Some(text) = text.filter(|text| !texts.contains(text)) {
                texts.push(text);
            }
        }
    }
    (hosts, usernames)
}
