//! Identifies the pod that wrote a record, from paths, tags, container names and labels.

/// The container that wrote a line, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod<'a> {
    pub(super) namespace: Option<&'a [u8]>,
    pub(super) name: Option<&'a [u8]>,
    pub(super) container: Option<&'a [u8]>,
}

/// Namespaces in which only administrators of the control plane can create pods.
const NAMESPACES: [&[u8]; 5] = [
    b"kube-system",
    b"openshift-kube-apiserver",
    b"openshift-apiserver",
    b"openshift-oauth-apiserver",
    b"openshift-authentication",
];

impl<'a> Pod<'a> {
    /// Whether the container is an apiserver: its name is that of one, and its namespace belongs to the control plane. Unknown properties
    /// count as matching.
    pub(super) fn is_apiserver(&self) -> bool {
        let is_named = |name: &[u8]| {
            [
                &b"kube-apiserver"[..],
                b"apiserver",
                b"openshift-apiserver",
                b"oauth-openshift",
                b"oauth-apiserver",
            ]
            .iter()
            .any(|start| name.starts_with(start))
        };
        self.namespace.is_none_or(|namespace| NAMESPACES.contains(&namespace))
            && self.name.is_none_or(is_named)
            && self.container.is_none_or(|name| is_named(name) || name == b"audit-logs" || name == b"audit")
    }

    /// Whether the name of the pod or the container is known.
    pub(super) fn is_known(&self) -> bool {
        self.name.is_some() || self.container.is_some()
    }

    /// Parses the path of a container log: `…/containers/POD_NAMESPACE_CONTAINER-ID.log`, `…/pods/NAMESPACE_POD_UID/CONTAINER/0.log`.
    pub(super) fn of_path(path: &'a [u8]) -> Option<Self> {
        let after = |mark: &[u8]| memchr::memmem::rfind(path, mark).map(|at| &path[at + mark.len()..]);
        if let Some(name) = after(b"/containers/") {
            return Self::of_file_name(name);
        }
        let mut parts = after(b"/pods/")?.split(|byte| *byte == b'/');
        let mut names = parts.next()?.split(|byte| *byte == b'_');
        let (namespace, name) = (names.next()?, names.next()?);
        Some(Pod { namespace: Some(namespace), name: Some(name), container: parts.next() })
    }

    /// Of `POD_NAMESPACE_CONTAINER-ID.log`.
    fn of_file_name(name: &'a [u8]) -> Option<Self> {
        let mut parts = name.split(|byte| *byte == b'_');
        let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let end = memchr::memrchr(b'-', rest)?;
        Some(Pod { namespace: Some(namespace), name: Some(pod), container: Some(&rest[..end]) })
    }

    /// Parses a tag of Fluent Bit or fluentd: `kube.var.log.containers.POD_NAMESPACE_CONTAINER-ID.log`.
    pub(super) fn of_tag(tag: &'a [u8]) -> Option<Self> {
        const MARK: &[u8] = b"containers.";
        let at = memchr::memmem::find(tag, MARK)?;
        Self::of_file_name(&tag[at + MARK.len()..])
    }

    /// Of `NAMESPACE/POD:CONTAINER`.
    pub(super) fn of_instance(instance: &'a [u8]) -> Option<Self> {
        let slash = memchr::memchr(b'/', instance)?;
        let colon = slash + memchr::memchr(b':', &instance[slash..])?;
        let (namespace, name) = (&instance[..slash], &instance[slash + 1..colon]);
        let container = &instance[colon + 1..];
        let is_name = |name: &[u8]| {
            name.first().is_some_and(u8::is_ascii_alphanumeric)
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        // Not an address, whose last part is a port number.
        let is_pod = [namespace, name, container].into_iter().all(is_name)
            && !container.iter().all(u8::is_ascii_digit);
        is_pod.then_some(Pod { namespace: Some(namespace), name: Some(name), container: Some(container) })
    }

    /// Parses the name that the kubelet gives a docker container: `k8s_CONTAINER_POD_NAMESPACE_UID_0`.
    pub(super) fn of_docker(name: &'a [u8]) -> Option<Self> {
        let mut parts =
            name.strip_prefix(b"/").unwrap_or(name).strip_prefix(b"k8s_")?.split(|byte| *byte == b'_');
        let (container, pod, namespace) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Pod { namespace: Some(namespace), name: Some(pod), container: Some(container) })
    }
}
