//! Which paths of a host hold credentials: the secrets and tokens of pods, the kubelet's certificate, logins to registries,
//! sockets of the container runtime.
//!
//! Takes the path of a `hostPath` or `local` volume and returns whether a pod that mounts it can read credentials there, in
//! the directory itself, above it, or below it.

/// Directories, files and sockets with credentials of their own or of all pods of the node. `*` is any one directory. The directory
/// of a kubelet is recognized by its name.
const CREDENTIAL_PATHS: [&str; 53] = [
    // Clients of the apiserver, and the control plane.
    "/etc/kubernetes",
    "/etc/origin",
    "/home/kubernetes",
    "/srv/kubernetes",
    "/var/lib/kubernetes",
    "/var/lib/kube-proxy",
    "/var/lib/minikube",
    "/var/lib/etcd",
    "/var/lib/rancher",
    "/etc/rancher",
    "/opt/rke",
    "/etc/k0s",
    "/var/lib/k0s",
    "/var/snap/microk8s",
    "/var/snap/k8s",
    "/k",
    // What a cloud hands a new node, which may be the token that it joins with.
    "/var/lib/cloud",
    "/var/lib/waagent",
    // Container runtimes: file systems and environments of all containers, and their sockets.
    "/var/lib/containerd",
    "/run/containerd",
    "/run/dockershim.sock",
    "/run/host-containerd",
    "/run/k0s",
    "/run/k3s",
    "/var/lib/docker",
    "/run/docker",
    "/run/docker.sock",
    "/run/cri-dockerd.sock",
    "/var/lib/containers",
    "/run/containers",
    "/run/crio",
    "/run/podman",
    "/run/buildkit",
    "/var/lib/buildkit",
    "/ProgramData/docker",
    "/ProgramData/containerd",
    "/pipe/docker_engine",
    "/pipe/containerd-containerd",
    // Logins to registries. A runtime without root keeps its login and its socket in the directory of its user.
    "/run/user",
    "/etc/containerd",
    "/etc/docker",
    "/etc/crio",
    "/etc/containers",
    "/.docker",
    "/root/.docker",
    "/home/*/.docker",
    "/var/home/*/.docker",
    "/Users/*/.docker",
    "/host_mnt/Users/*/.docker",
    // All processes with their file systems, the disks, and the file system of a node whose root is an image.
    "/proc",
    "/dev",
    "/sysroot",
    "/ostree",
];

/// Directories of kubelets: volumes of all pods, the client certificate, logins to registries.
const KUBELETS: [&str; 4] =
    ["/var/lib/kubelet", "/data/kubelet", "/var/data/kubelet", "/var/vcap/data/kubelet"];

/// Directories and devices below those above without credentials: those that device plugins and sandboxes mount, and those in which
/// distributions make the volumes of claims.
const HARMLESS_PATHS: [&str; 11] = [
    "/dev/shm",
    "/dev/dri",
    "/dev/kfd",
    "/dev/kvm",
    "/dev/fuse",
    "/dev/kmsg",
    "/dev/infiniband",
    "/dev/hugepages",
    "/dev/net/tun",
    "/var/lib/rancher/k3s/storage",
    "/var/snap/microk8s/common/default-storage",
];

/// Directories of a kubelet without credentials, which device plugins and storage drivers mount.
const HARMLESS_IN_KUBELET: [&str; 5] =
    ["device-plugins", "plugins", "plugins_registry", "pod-resources", "seccomp"];

/// Directories and files with logins wherever they are: clients of registries and of apiservers keep them in a home directory, and any
/// directory can be one.
const LOGIN_NAMES: [&str; 3] = [".docker", ".dockercfg", ".kube"];

/// The directory of a login of Podman, Buildah and Skopeo below a home directory.
const CONTAINERS_CONFIGURATION: [&str; 2] = [".config", "containers"];

/// Directories in which the kubelet serves files, and in which it follows links.
const LOG_DIRECTORIES: [&str; 2] = ["/var/log/pods", "/var/log/containers"];

/// Returns whether a pod that mounts this path of the host can read credentials.
pub(super) fn holds_credentials(path: &[u8]) -> bool {
    let Some(path) = HostPath::of(path) else { return true };
    let is_in_kubelet =
        |rest: &[String]| !rest.first().is_some_and(|part| HARMLESS_IN_KUBELET.contains(&&**part));
    path.in_kubelet().is_some_and(is_in_kubelet)
        || KUBELETS.iter().any(|kubelet| path.is_above(kubelet))
        || path.parts.iter().any(|part| LOGIN_NAMES.contains(&&**part))
        || path.parts.windows(2).any(|parts| parts == CONTAINERS_CONFIGURATION)
        || path.parts.last().is_some_and(|part| part == CONTAINERS_CONFIGURATION[0])
        || !HARMLESS_PATHS.iter().any(|harmless| path.is_below(harmless))
            && CREDENTIAL_PATHS.iter().any(|directory| path.is_below(directory) || path.is_above(directory))
}

/// Returns whether a pod that can write to this path of the host can read any file of the host: it puts a link into a log file's place,
/// and the kubelet, which is root, serves what the link leads to (`kubectl logs`, `/logs/` of the kubelet).
pub(super) fn serves_links(path: &[u8]) -> bool {
    let Some(path) = HostPath::of(path) else { return true };
    LOG_DIRECTORIES.iter().any(|directory| path.is_below(directory)) || path.parts == ["var", "log"]
}

/// A path of a host, in parts.
struct HostPath {
    parts: Vec<String>,
    /// Whether it is one of Windows, which does not distinguish case.
    is_of_windows: bool,
}

impl HostPath {
    /// Splits a path at its slashes, without empty parts, dots and the drive; none if it has two dots: the apiserver rejects those
    /// between slashes, and does not know those between backslashes.
    fn of(path: &[u8]) -> Option<Self> {
        let path = String::from_utf8_lossy(path);
        let is_drive = |part: &str| matches!(part.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic());
        let is_of_windows = path.contains('\\') || path.split('/').any(is_drive);
        let parts = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."));
        let parts = parts.filter(|part| !is_of_windows || *part != "?" && !is_drive(part));
        let parts: Option<Vec<String>> = parts.map(|part| (part != "..").then(|| part.to_owned())).collect();
        let mut parts = parts?;
        // A link to the other in all systems.
        if parts.starts_with(&["var".to_owned(), "run".to_owned()]) {
            parts.remove(0);
        }
        Some(HostPath { parts, is_of_windows })
    }

    fn is(&self, part: &str, expected: &str) -> bool {
        expected == "*" || part == expected || self.is_of_windows && part.eq_ignore_ascii_case(expected)
    }

    /// Whether it is this directory or below it.
    fn is_below(&self, directory: &str) -> bool {
        let mut parts = self.parts.iter();
        directory.split('/').skip(1).all(|part| parts.next().is_some_and(|next| self.is(next, part)))
    }

    /// Whether it is this directory or above it.
    fn is_above(&self, directory: &str) -> bool {
        let mut parts = directory.split('/').skip(1);
        self.parts.iter().all(|part| parts.next().is_some_and(|next| self.is(part, next)))
    }

    /// The rest of the path below the directory of a kubelet, by any path to it. A program and a log of that name are not one.
    fn in_kubelet(&self) -> Option<&[String]> {
        let at = self.parts.iter().position(|part| self.is(part, "kubelet"))?;
        let above = &self.parts[..at];
        let is_other = above.iter().any(|part| matches!(&**part, "bin" | "sbin" | "usr" | "log"));
        (!is_other).then(|| &self.parts[at + 1..])
    }
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
            "/var/lib/kubelet/config.json",
            "/data",
            "/data/kubelet",
            "/var/data/kubelet/pods",
            "/mnt/disk0/kubelet/pki",
            "/run",
            "/run/containerd/containerd.sock",
            "/var/run/docker.sock",
            "/var/run",
            "/var/run/user/1000/containers/auth.json",
            "/run/user",
            "/etc",
            "/etc/kubernetes/admin.conf",
            "/etc/crio/crio.conf",
            "/etc/containers/auth.json",
            "/etc/containerd/certs.d",
            "/etc/rancher/k3s/registries.yaml",
            "/srv",
            "/srv/kubernetes",
            "/var/lib/minikube/certs",
            "/var/lib/rancher/k3s",
            "/var/lib/rancher/k3s/storage-of-others",
            "/dev",
            "/var/lib/containers/storage",
            "/proc",
            "/proc/1/root",
            "/root",
            "/root/.docker",
            "/root/.docker/config.json",
            "/.docker",
            "/home",
            "/home/alice",
            "/home/alice/.docker",
            "/home/alice//.config/containers/auth.json",
            "/root/.config",
            "/opt/builds/agent/.docker/config.json",
            "/srv/ci/.dockercfg",
            "/home/alice/.kube/config",
            "/dev/sda1",
            "var/lib/kubelet",
            "/tmp/../var",
            "/var/lib/kubelet/plugins/../pki",
            "C:\\",
            "C:\\var\\lib\\kubelet",
            "c:/Users/build/.docker",
            "\\\\.\\pipe\\docker_engine",
            "C:\\programdata\\Docker",
            "C:\\k\\config",
            "C:\\tmp\\..\\k",
        ] {
            assert!(holds_credentials(path.as_bytes()), "{path}");
        }
        for path in [
            "/var/log",
            "/var/log/pods",
            "/var/log/kubelet",
            "/sys",
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/etc/dockers",
            "/var/lib/kubelet/plugins/csi",
            "/var/lib/kubelet//plugins/./csi/",
            "/var/lib/kubelet/plugins_registry",
            "/var/lib/kubelet/device-plugins",
            "/data/kubelet/plugins",
            "C:\\var\\lib\\kubelet\\plugins",
            "\\\\.\\pipe\\csi-proxy-filesystem-v1",
            "/usr/bin/kubelet",
            "/usr/libexec/kubernetes/kubelet-plugins/volume/exec",
            "/dev/shm",
            "/dev/kmsg",
            "/var/lib/rancher/k3s/storage/pvc-1_shop_data",
            "/var/snap/microk8s/common/default-storage/shop-data-pvc-1",
            "/etc/ssl/certs",
            "/var/lib/kubelets",
            "/home/alice/data",
            "/data/postgres",
            "/srv/data",
            "/mnt/disks",
            "/run/udev",
            "/var/lib/csi-hostpath-data",
            "/tmp",
        ] {
            assert!(!holds_credentials(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn links_in_log_directories_are_served() {
        for path in
            ["/var/log", "/var//log/", "/var/log/pods", "/var/log/pods/shop_web_1", "/var/log/./containers"]
        {
            assert!(serves_links(path.as_bytes()), "{path}");
        }
        for path in ["/var/log/kubernetes/audit", "/var/log/journal", "/var/log/containersx", "/log"] {
            assert!(!serves_links(path.as_bytes()), "{path}");
        }
    }
}
