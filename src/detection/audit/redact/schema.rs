//! The allowlist of redaction: the members of events and Kubernetes objects whose values are known to be harmless.
//!
//! A tree of [`Node`]s that mirrors the API types, without array levels. A member that is not in the tree is redacted, and so is a value
//! that fails the [`AllowedStrings`] of its node. Data of secrets, environments, command lines and free text must never be added.

use super::check::AllowedStrings;

/// A position in an event or object.
#[derive(Debug)]
pub(super) struct Node {
    /// Decides which strings may be shown at this place, or as elements of an array at this place.
    pub allowed: AllowedStrings,
    pub members: &'static [(&'static str, &'static Node)],
    /// Schema of the members that `members` does not name, if the object is a map.
    pub other_members: Option<&'static Node>,
}

impl Node {
    /// Returns the position of a member, and whether the tree names it.
    pub(super) fn member(&'static self, key: &[u8]) -> (&'static Node, bool) {
        match self.members.iter().find(|(name, _)| name.as_bytes() == key) {
            Some((_, node)) => (node, true),
            None => (self.other_members.unwrap_or(&HIDDEN), false),
        }
    }
}

macro_rules! leaf {
    ($check:ident) => {
        Node { allowed: AllowedStrings::$check, members: &[], other_members: None }
    };
}

macro_rules! map {
    ($values:ident) => {
        Node { allowed: AllowedStrings::Hidden, members: &[], other_members: Some(&$values) }
    };
}

macro_rules! object {
    ($($key:literal: $node:ident),* $(,)?) => {
        Node { allowed: AllowedStrings::Hidden, members: &[$(($key, &$node)),*], other_members: None }
    };
}

pub(super) static HIDDEN: Node = leaf!(Hidden);
/// Parts of the head of an event. The apiserver, not the client's payload, determines their form.
pub(super) static PLAIN: Node =
    Node { allowed: AllowedStrings::Plain, members: &[], other_members: Some(&PLAIN) };
/// Members in the head of an event whose content a client chooses.
pub(super) static HEAD: Node =
    Node { allowed: AllowedStrings::Head, members: &[], other_members: Some(&HEAD) };
static NAME: Node = leaf!(Name);
pub(super) static USER: Node = leaf!(User);
static IMAGE: Node = leaf!(Image);
static NUMBER: Node = leaf!(Number);
pub(super) static URI: Node = leaf!(Uri);
static POINTER: Node = leaf!(Pointer);
static LABELS: Node = map!(NAME);

/// An audit event.
pub(super) static EVENT: Node = object! {
    "kind": PLAIN, "apiVersion": PLAIN, "level": PLAIN, "auditID": HEAD, "stage": PLAIN, "verb": HEAD,
    "requestURI": URI, "user": REQUEST_USER, "impersonatedUser": REQUEST_USER, "sourceIPs": HEAD, "userAgent": HEAD,
    "objectRef": HEAD, "responseStatus": STATUS, "requestObject": BODY, "responseObject": BODY,
    "requestReceivedTimestamp": PLAIN, "stageTimestamp": PLAIN, "timestamp": PLAIN, "metadata": METADATA,
    "annotations": EVENT_ANNOTATIONS, "code": PLAIN, "truncated": PLAIN, "authenticationMetadata": PLAIN,
};

static REQUEST_USER: Node = object! { "username": USER, "uid": USER, "groups": USER, "extra": EXTRA };
static EXTRA: Node = map!(USER);

/// Audit annotations are written by the apiserver and by admission plugins. Those of mutating webhooks contain patches, and
/// those of unknown plugins anything.
static EVENT_ANNOTATIONS: Node = Node {
    allowed: AllowedStrings::Hidden,
    members: &[
        ("authorization.k8s.io/decision", &PLAIN),
        ("authorization.k8s.io/reason", &PLAIN),
        ("authentication.openshift.io/decision", &PLAIN),
        ("authentication.openshift.io/username", &USER),
        ("validation.policy.admission.k8s.io/validation_failure", &PLAIN),
        ("pod-security.kubernetes.io/audit-violations", &PLAIN),
        ("pod-security.kubernetes.io/enforce-policy", &PLAIN),
        ("pod-security.kubernetes.io/exempt", &PLAIN),
        ("pod-security.kubernetes.io/error", &PLAIN),
        ("apiserver.latency.k8s.io/total", &PLAIN),
        ("audit.k8s.io/truncated", &PLAIN),
        ("cluster_name", &PLAIN),
        ("k8s.io/deprecated", &PLAIN),
        ("k8s.io/removed-release", &PLAIN),
        ("apiserver.k8s.io/shadow-user", &USER),
    ],
    other_members: None,
};

/// A `Status`. Its messages may quote the request.
static STATUS: Node = object! {
    "kind": NAME, "apiVersion": NAME, "metadata": METADATA, "status": NAME, "reason": NAME, "code": NUMBER,
    "details": STATUS_DETAILS,
};
static STATUS_DETAILS: Node = object! {
    "name": NAME, "group": NAME, "kind": NAME, "uid": NAME, "retryAfterSeconds": NUMBER, "causes": STATUS_CAUSES,
};
static STATUS_CAUSES: Node = object! { "reason": NAME, "field": NAME };

/// A request or response object of any kind: the union of all kinds, because patches do not state theirs.
pub(super) static BODY: Node = object! {
    "kind": NAME, "apiVersion": NAME, "metadata": METADATA, "type": NAME, "immutable": NUMBER,
    // Lists, tables and watch events.
    "items": BODY, "rows": TABLE_ROWS, "columnDefinitions": TABLE_COLUMNS, "object": BODY,
    // RBAC.
    "rules": POLICY_RULES, "roleRef": REFERENCE, "subjects": SUBJECTS, "aggregationRule": AGGREGATION,
    // Service accounts.
    "secrets": REFERENCE, "imagePullSecrets": REFERENCE, "automountServiceAccountToken": NUMBER,
    "spec": SPEC, "template": POD_TEMPLATE, "status": OBJECT_STATUS, "webhooks": WEBHOOKS,
    // Eviction, binding, events, status, delete options.
    "target": REFERENCE, "involvedObject": REFERENCE, "regarding": REFERENCE, "reason": NAME, "code": NUMBER,
    "details": STATUS_DETAILS, "propagationPolicy": NAME, "dryRun": NAME, "gracePeriodSeconds": NUMBER,
    "preconditions": REFERENCE, "deleteOptions": DELETE_OPTIONS, "orphanDependents": NUMBER, "provisioner": NAME,
    "reclaimPolicy": NAME, "driver": NAME, "value": NUMBER, "globalDefault": NUMBER,
};

/// An operation of a JSON patch. `value` is at the place that `path` names.
pub(super) static PATCH_OPERATION: Node = object! { "op": NAME, "path": POINTER, "from": POINTER };

static DELETE_OPTIONS: Node = object! {
    "kind": NAME, "apiVersion": NAME, "propagationPolicy": NAME, "dryRun": NAME, "gracePeriodSeconds": NUMBER,
    "preconditions": REFERENCE,
};

static METADATA: Node = object! {
    "name": NAME, "generateName": NAME, "namespace": NAME, "uid": NAME, "resourceVersion": NAME, "generation": NUMBER,
    "creationTimestamp": NAME, "deletionTimestamp": NAME, "deletionGracePeriodSeconds": NUMBER, "labels": LABELS,
    "annotations": OBJECT_ANNOTATIONS, "ownerReferences": REFERENCE, "finalizers": NAME, "managedFields": MANAGED_FIELDS,
    "remainingItemCount": NUMBER,
};
/// `fieldsV1` is missing because its keys contain values of sets.
static MANAGED_FIELDS: Node = object! {
    "manager": NAME, "operation": NAME, "apiVersion": NAME, "time": NAME, "fieldsType": NAME, "subresource": NAME,
};
/// Tools store whole objects in annotations, so only these are shown.
static OBJECT_ANNOTATIONS: Node = object! {
    "eks.amazonaws.com/role-arn": NAME, "iam.gke.io/gcp-service-account": USER, "azure.workload.identity/client-id": NAME,
    "kubernetes.io/service-account.name": NAME, "kubernetes.io/service-account.uid": NAME,
    "deployment.kubernetes.io/revision": NAME, "kubectl.kubernetes.io/restartedAt": NAME,
    "kubectl.kubernetes.io/default-container": NAME, "rbac.authorization.kubernetes.io/autoupdate": NAME,
    "meta.helm.sh/release-name": NAME, "meta.helm.sh/release-namespace": NAME,
};

/// Names of an object, a key or a part of one, and object references of every kind.
static REFERENCE: Node = object! {
    "kind": NAME, "name": NAME, "namespace": NAME, "uid": NAME, "apiGroup": NAME, "apiVersion": NAME, "key": NAME,
    "resourceVersion": NAME, "fieldPath": NAME, "optional": NUMBER, "controller": NUMBER, "blockOwnerDeletion": NUMBER,
    "group": NAME,
};
static SUBJECTS: Node = object! { "kind": NAME, "name": USER, "namespace": NAME, "apiGroup": NAME };
static POLICY_RULES: Node = object! {
    "verbs": NAME, "apiGroups": NAME, "resources": NAME, "resourceNames": NAME, "nonResourceURLs": NAME,
    // For webhook configurations and admission policies.
    "operations": NAME, "apiVersions": NAME, "scope": NAME,
    // Of ingresses.
    "host": NAME,
};
static AGGREGATION: Node = object! { "clusterRoleSelectors": SELECTOR };
static SELECTOR: Node = object! { "matchLabels": LABELS, "matchExpressions": EXPRESSIONS };
static EXPRESSIONS: Node = object! { "key": NAME, "operator": NAME, "values": NAME };
static WEBHOOKS: Node = object! {
    "name": NAME, "rules": POLICY_RULES, "failurePolicy": NAME, "sideEffects": NAME, "matchPolicy": NAME,
    "namespaceSelector": SELECTOR, "objectSelector": SELECTOR, "timeoutSeconds": NUMBER, "reinvocationPolicy": NAME,
};
static TABLE_ROWS: Node = object! { "object": BODY };
static TABLE_COLUMNS: Node = object! { "name": NAME, "type": NAME, "format": NAME, "priority": NUMBER };

/// The specification of any kind: of pods, of objects with a pod template, and of requests about access.
static SPEC: Node = object! {
    // Pods.
    "containers": CONTAINERS, "initContainers": CONTAINERS, "ephemeralContainers": CONTAINERS, "volumes": VOLUMES,
    "imagePullSecrets": REFERENCE, "serviceAccountName": NAME, "serviceAccount": NAME, "nodeName": NAME,
    "nodeSelector": LABELS, "restartPolicy": NAME, "dnsPolicy": NAME, "hostNetwork": NUMBER, "hostPID": NUMBER,
    "hostIPC": NUMBER, "securityContext": SECURITY_CONTEXT, "schedulerName": NAME, "priorityClassName": NAME,
    "priority": NUMBER, "runtimeClassName": NAME, "hostname": NAME, "subdomain": NAME, "tolerations": TOLERATIONS,
    "terminationGracePeriodSeconds": NUMBER, "activeDeadlineSeconds": NUMBER, "automountServiceAccountToken": NUMBER,
    "enableServiceLinks": NUMBER, "preemptionPolicy": NAME, "runAsUser": NUMBER, "runAsGroup": NUMBER,
    "shareProcessNamespace": NUMBER,
    // Objects with a pod template.
    "template": POD_TEMPLATE, "jobTemplate": JOB_TEMPLATE, "selector": SPEC_SELECTOR, "replicas": NUMBER,
    "schedule": NAME, "suspend": NUMBER, "backoffLimit": NUMBER, "parallelism": NUMBER, "completions": NUMBER,
    "revisionHistoryLimit": NUMBER, "serviceName": NAME, "strategy": TYPED, "updateStrategy": TYPED,
    // Reviews of access and tokens.
    "user": USER, "groups": USER, "uid": USER, "namespace": NAME, "resourceAttributes": RESOURCE_ATTRIBUTES,
    "nonResourceAttributes": RESOURCE_ATTRIBUTES, "audiences": NAME, "expirationSeconds": NUMBER,
    "boundObjectRef": REFERENCE,
    // Certificate signing requests; the request itself is hidden.
    "signerName": NAME, "usages": NAME, "username": USER,
    // Services and storage.
    "type": NAME, "ports": PORTS, "clusterIP": NAME, "clusterIPs": NAME, "ipFamilies": NAME, "ipFamilyPolicy": NAME,
    "sessionAffinity": NAME, "internalTrafficPolicy": NAME, "accessModes": NAME, "storageClassName": NAME,
    "volumeName": NAME, "volumeMode": NAME, "finalizers": NAME, "taints": TOLERATIONS, "podCIDR": NAME,
    "holderIdentity": NAME, "leaseDurationSeconds": NUMBER, "renewTime": NAME, "acquireTime": NAME,
    // Custom resources, admission policies.
    "group": NAME, "names": REFERENCE, "scope": NAME, "secretStoreRef": REFERENCE, "target": REFERENCE,
    "refreshInterval": NAME, "policyName": NAME, "validationActions": NAME, "failurePolicy": NAME, "rules": POLICY_RULES,
};
static TYPED: Node = object! { "type": NAME };
/// For a workload, a label selector; for a service, the labels themselves.
static SPEC_SELECTOR: Node = Node {
    allowed: AllowedStrings::Hidden,
    members: &[("matchLabels", &LABELS), ("matchExpressions", &EXPRESSIONS)],
    other_members: Some(&NAME),
};
static POD_TEMPLATE: Node = object! { "metadata": METADATA, "spec": SPEC };
static JOB_TEMPLATE: Node = object! { "metadata": METADATA, "spec": SPEC };
static RESOURCE_ATTRIBUTES: Node = object! {
    "verb": NAME, "group": NAME, "version": NAME, "resource": NAME, "subresource": NAME, "namespace": NAME, "name": NAME,
    "path": NAME,
};
static CONTAINERS: Node = object! {
    "name": NAME, "image": IMAGE, "imagePullPolicy": NAME, "ports": PORTS, "env": ENVIRONMENT, "envFrom": ENVIRONMENT_FROM,
    "volumeMounts": MOUNTS, "securityContext": SECURITY_CONTEXT, "targetContainerName": NAME, "restartPolicy": NAME,
    "runAsUser": NUMBER, "runAsGroup": NUMBER, "stdin": NUMBER, "tty": NUMBER, "stdinOnce": NUMBER,
    "terminationMessagePolicy": NAME, "resources": RESOURCES,
};
static RESOURCES: Node = object! { "limits": LABELS, "requests": LABELS };
static PORTS: Node = object! {
    "name": NAME, "protocol": NAME, "containerPort": NUMBER, "hostPort": NUMBER, "hostIP": NAME, "port": NUMBER,
    "targetPort": NAME, "nodePort": NUMBER, "appProtocol": NAME,
};
/// The value of a variable is missing on purpose.
static ENVIRONMENT: Node = object! { "name": NAME, "valueFrom": VALUE_FROM };
static VALUE_FROM: Node = object! {
    "secretKeyRef": REFERENCE, "configMapKeyRef": REFERENCE, "fieldRef": REFERENCE, "resourceFieldRef": RESOURCE_FIELD,
};
static RESOURCE_FIELD: Node = object! { "containerName": NAME, "resource": NAME, "divisor": NAME };
static ENVIRONMENT_FROM: Node = object! { "secretRef": REFERENCE, "configMapRef": REFERENCE, "prefix": NAME };
static MOUNTS: Node = object! {
    "name": NAME, "mountPath": NAME, "subPath": NAME, "readOnly": NUMBER, "mountPropagation": NAME,
};
static SECURITY_CONTEXT: Node = object! {
    "privileged": NUMBER, "allowPrivilegeEscalation": NUMBER, "readOnlyRootFilesystem": NUMBER, "runAsUser": NUMBER,
    "runAsGroup": NUMBER, "runAsNonRoot": NUMBER, "fsGroup": NUMBER, "supplementalGroups": NUMBER, "procMount": NAME,
    "capabilities": CAPABILITIES, "seccompProfile": TYPED, "appArmorProfile": TYPED, "fsGroupChangePolicy": NAME,
};
static CAPABILITIES: Node = object! { "add": NAME, "drop": NAME };
static TOLERATIONS: Node = object! {
    "key": NAME, "operator": NAME, "value": NAME, "effect": NAME, "tolerationSeconds": NUMBER,
};
static VOLUMES: Node = object! {
    "name": NAME, "secret": VOLUME_SOURCE, "configMap": VOLUME_SOURCE, "hostPath": HOST_PATH, "emptyDir": EMPTY_DIR,
    "projected": PROJECTED, "persistentVolumeClaim": CLAIM, "downwardAPI": VOLUME_SOURCE, "csi": CSI,
};
static VOLUME_SOURCE: Node = object! {
    "name": NAME, "secretName": NAME, "items": KEYS_TO_PATHS, "optional": NUMBER, "defaultMode": NUMBER,
};
static KEYS_TO_PATHS: Node = object! { "key": NAME, "path": NAME, "mode": NUMBER, "fieldRef": REFERENCE };
static HOST_PATH: Node = object! { "path": NAME, "type": NAME };
static EMPTY_DIR: Node = object! { "medium": NAME, "sizeLimit": NAME };
static CLAIM: Node = object! { "claimName": NAME, "readOnly": NUMBER };
static CSI: Node = object! { "driver": NAME, "readOnly": NUMBER, "nodePublishSecretRef": REFERENCE };
static PROJECTED: Node = object! { "sources": PROJECTIONS, "defaultMode": NUMBER };
static PROJECTIONS: Node = object! {
    "secret": VOLUME_SOURCE, "configMap": VOLUME_SOURCE, "downwardAPI": VOLUME_SOURCE,
    "serviceAccountToken": TOKEN_PROJECTION,
};
static TOKEN_PROJECTION: Node = object! { "audience": NAME, "expirationSeconds": NUMBER, "path": NAME };

/// The status of any kind. A token request contains its token here, which is not in the allowlist.
static OBJECT_STATUS: Node = Node {
    // `status: Failure` of a `Status`.
    allowed: AllowedStrings::Name,
    members: &[
        ("phase", &NAME),
        ("allowed", &NUMBER),
        ("denied", &NUMBER),
        ("authenticated", &NUMBER),
        ("expirationTimestamp", &NAME),
        ("reason", &NAME),
        ("replicas", &NUMBER),
        ("readyReplicas", &NUMBER),
        ("availableReplicas", &NUMBER),
        ("observedGeneration", &NUMBER),
        ("podIP", &NAME),
        ("hostIP", &NAME),
        ("qosClass", &NAME),
        ("startTime", &NAME),
        ("conditions", &CONDITIONS),
    ],
    other_members: None,
};
static CONDITIONS: Node = object! {
    "type": NAME, "status": NAME, "reason": NAME, "lastTransitionTime": NAME, "lastUpdateTime": NAME, "lastProbeTime": NAME,
};
