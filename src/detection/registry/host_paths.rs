//! Which paths of a host hold credentials: the secrets and tokens of pods, the kubelet's certificate, logins to registries,
//! sockets of the container runtime.
//!
//! Takes the path of a `hostPath` or `local` volume and returns whether a pod that mounts it can read credentials there, in
//! the directory itself, above it, or below it.

/// Directories and sockets with credentials of their own or of all pods of the node.
const CREDENTIAL_PATHS: [&str; 32] = [
    // The kubelet: volumes of all pods, its client certificate, its configuration.
    "/var/lib/kubelet",
    "/etc/kubernetes",
    "/home/kubernetes",
    "/var/lib/etcd",
    "/var/lib/rancher",
    "/etc/rancher",
    "/var/lib/k0s",
    "/var/snap/microk8s",
    // Container runtimes: file systems and environments of all containers, and their sockets.
    "/var/lib/containerd",
    "/run/containerd",
    "/var/run/containerd",
    "/run/k3s",
    "/var/run/k3s",
    "/var/lib/docker",
    "/run/docker",
    "/var/run/docker",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/cri-dockerd.sock",
    "/var/run/cri-dockerd.sock",
    "/var/lib/containers",
    "/run/containers",
    "/var/run/containers",
    "/run/crio",
    "/var/run/crio",
    // Logins to registries.
    "/etc/containerd",
    "/etc/docker",
    "/etc/crio",
    "/etc/containers",
    "/root/.docker",
    // All processes with their file systems, and the disks.
    "/proc",
    "/dev",
];

/// Directories below those above without credentials, which device plugins, storage drivers and log shippers mount.
const HARMLESS_PATHS: [&str; 8] = [
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet/plugins",
    "/var/lib/kubelet/plugins_registry",
    "/var/lib/kubelet/pod-resources",
    "/var/lib/kubelet/seccomp",
    "/dev/shm",
    "/dev/dri",
    "/dev/net/tun",
];

/// Returns whether a pod that mounts this path of the host can read credentials.
pub(super) fn holds_credentials(path: &[u8]) -> bool {
    let Some(path) = normalize(path) else { return true };
    let is_below = |path: &[String], directory: &str| {
        let mut parts = path.iter();
        directory.split('/').skip(1).all(|part| parts.next().is_some_and(|next| next == part))
    };
    let is_above = |path: &[String], directory: &str| {
        let mut parts = directory.split('/').skip(1);
        path.iter().all(|part| parts.next() == Some(part))
    };
    !HARMLESS_PATHS.iter().any(|harmless| is_below(&path, harmless))
        && CREDENTIAL_PATHS.iter().any(|directory| is_below(&path, directory) || is_above(&path, directory))
}

/// Splits a path at its slashes, without empty parts and dots; none if it has two dots, which the apiserver rejects.
fn normalize(path: &[u8]) -> Option<Vec<String>> {
    let path = String::from_utf8_lossy(path);
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.map(|part| (part != "..").then(|| part.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_with_credentials_are_found_above_and_below() {
        for path in [
            "/",
            "//",
            "/var",
            "/var/lib/",
            "/var/lib/kubelet",
            "/var//lib/./kubelet/pods/",
            "/var/lib/kubelet/pki",
            "/run",
            "/run/containerd/containerd.sock",
            "/var/run/docker.sock",
            "/etc",
            "/etc/kubernetes/admin.conf",
            "/proc",
            "/proc/1/root",
            "/root",
            "/dev/sda1",
            "var/lib/kubelet",
            "/tmp/../var",
        ] {
            assert!(holds_credentials(path.as_bytes()), "{path}");
        }
        for path in [
            "/var/log",
            "/var/log/pods",
            "/sys",
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/var/lib/kubelet/plugins/csi",
            "/var/lib/kubelet/device-plugins",
            "/dev/shm",
            "/etc/ssl/certs",
            "/var/lib/kubelets",
            "/tmp",
        ] {
            assert!(!holds_credentials(path.as_bytes()), "{path}");
        }
    }
}
