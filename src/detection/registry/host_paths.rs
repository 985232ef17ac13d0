//! Host paths that contain credentials: the secrets and tokens of pods, the kubelet's certificate, logins to registries, sockets of the
//! container runtime; and host paths from which the host runs code.
//!
//! Takes the path of a `hostPath` or `local` volume and returns whether a pod that mounts it can read credentials there, or can let the
//! host run code from there, in the directory itself, above it, or below it.

/// Directories, files and sockets with credentials of their own or of all pods of the node. `*` matches one directory name. The directory
/// of a kubelet is recognized by its name.
const CREDENTIAL_PATHS: [&str; 63] = [
    // Apiserver clients, and the control plane.
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
    "/system/secrets",
    "/system/state",
    // The partition that Container-Optimized OS mounts at /var and /home.
    "/mnt/stateful_partition",
    // Data that a cloud provider hands to a new node, which may include the token for joining the cluster.
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
    // Sockets of services that start programs as root: systemd, virtual machines, containers, packages.
    "/run/dbus",
    "/run/systemd",
    "/run/libvirt",
    "/run/snapd.socket",
    "/run/lxd",
    "/var/lib/lxd",
    "/var/snap/lxd",
    "/ProgramData/docker",
    "/ProgramData/containerd",
    "/pipe/docker_engine",
    "/pipe/containerd-containerd",
    // Registry logins. A rootless runtime keeps its login and its socket in the user's directory.
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

/// Directories and files from which the host runs code, or that determine what it runs. `*` matches one directory name. A pod that can
/// write to one of them is root on its node.
const CODE_PATHS: [&str; 57] = [
    // Programs and libraries.
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/usr",
    "/boot",
    "/opt/bin",
    "/opt/cni",
    "/opt/containerd",
    "/opt/nri",
    "/var/lib/cni/bin",
    // Programs started at a time, at boot, at login, for a device, for a network or for a container.
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/crontab",
    "/etc/anacrontab",
    "/var/spool/cron",
    "/var/spool/at",
    "/var/spool/anacron",
    "/etc/systemd",
    "/etc/init.d",
    "/etc/init",
    "/etc/rc.local",
    "/etc/rc.d",
    "/etc/inittab",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/environment",
    "/etc/default",
    "/etc/sysconfig",
    "/etc/udev",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/ld.so.preload",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/logrotate.d",
    "/etc/update-motd.d",
    "/etc/NetworkManager",
    "/etc/network",
    "/etc/cni",
    "/etc/cdi",
    "/etc/nri",
    // Who may log in, and as which user.
    "/etc/passwd",
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/pam.d",
    "/etc/ssh",
    // Programs that the kernel starts on events of control groups or devices.
    "/sys/fs/cgroup",
    "/sys/kernel/uevent_helper",
];

/// Exceptions to the above: directories from which nothing is run as root.
const DATA_PATHS: [&str; 3] = ["/usr/share", "/usr/src", "/usr/lib/locale"];

/// Directories of kubelets: volumes of all pods, the client certificate, logins to registries.
const KUBELETS: [&str; 4] =
    ["/var/lib/kubelet", "/data/kubelet", "/var/data/kubelet", "/var/vcap/data/kubelet"];

/// Exceptions to the above without credentials: directories and devices that device plugins and sandboxes mount, and those in which
/// distributions create the volumes of claims.
const HARMLESS_PATHS: [&str; 13] = [
    "/dev/shm",
    "/dev/dri",
    "/dev/kfd",
    "/dev/kvm",
    "/dev/fuse",
    "/dev/kmsg",
    "/dev/infiniband",
    "/dev/hugepages",
    "/dev/net/tun",
    "/run/systemd/journal",
    "/run/systemd/resolve",
    "/var/lib/rancher/k3s/storage",
    "/var/snap/microk8s/common/default-storage",
];

/// Subdirectories of a kubelet's directory without credentials, which device plugins and storage drivers mount.
const HARMLESS_IN_KUBELET: [&str; 5] =
    ["device-plugins", "plugins", "plugins_registry", "pod-resources", "seccomp"];

/// Directories and files that contain logins regardless of their location: clients of registries, apiservers, clouds and other hosts keep
/// them in a home directory, which can be any directory.
const LOGIN_NAMES: [&str; 8] =
    [".docker", ".dockercfg", ".kube", ".aws", ".azure", ".ssh", ".netrc", ".git-credentials"];

/// The settings directory below a home directory, and its subdirectories with logins: of Podman, Buildah and Skopeo, and of Google's
/// client.
const CONFIGURATION: &str = ".config";
const CONFIGURATIONS_WITH_LOGIN: [&str; 2] = ["containers", "gcloud"];

/// Directories whose files the kubelet serves, following links.
const LOG_DIRECTORIES: [&str; 2] = ["/var/log/pods", "/var/log/containers"];

/// Returns whether a pod that mounts this path of the host can read credentials.
pub(super) fn holds_credentials(path: &[u8]) -> bool {
    let Some(path) = HostPath::of(path) else { return true };
    let is_in_kubelet =
        |rest: &[String]| !rest.first().is_some_and(|part| HARMLESS_IN_KUBELET.contains(&&**part));
    path.in_kubelet().is_some_and(is_in_kubelet)
        || KUBELETS.iter().any(|kubelet| path.is_above(kubelet))
        || path.parts.iter().any(|part| LOGIN_NAMES.contains(&&**part))
        || path
            .parts
            .windows(2)
            .any(|parts| parts[0] == CONFIGURATION && CONFIGURATIONS_WITH_LOGIN.contains(&&*parts[1]))
        || path.parts.last().is_some_and(|part| part == CONFIGURATION)
        || !HARMLESS_PATHS.iter().any(|harmless| path.is_below(harmless))
            && CREDENTIAL_PATHS.iter().any(|directory| path.is_below(directory) || path.is_above(directory))
}

/// Returns whether a pod that can write to this host path can read any file of the host: it can replace a log file with a link, and the
/// kubelet, which runs as root, serves the target of the link (`kubectl logs`, `/logs/` of the kubelet).
pub(super) fn serves_links(path: &[u8]) -> bool {
    let Some(path) = HostPath::of(path) else { return true };
    LOG_DIRECTORIES.iter().any(|directory| path.is_below(directory)) || path.parts == ["var", "log"]
}

/// Returns whether a pod that can write to this host path can make the host run code, which makes it root on its node.
pub(super) fn runs_code(path: &[u8]) -> bool {
    let Some(path) = HostPath::of(path) else { return true };
    !DATA_PATHS.iter().any(|harmless| path.is_below(harmless))
        && CODE_PATHS.iter().any(|directory| path.is_below(directory) || path.is_above(directory))
}

/// A host path, split into parts.
struct HostPath {
    parts: Vec<String>,
    /// Whether it is a Windows path, which is not case-sensitive.
    is_of_windows: bool,
}

impl HostPath {
    /// Splits a path at its slashes, without empty parts, dots and the drive. None if it contains two dots: the apiserver rejects them
    /// between slashes, and does not recognize them between backslashes.
    fn of(path: &[u8]) -> Option<Self> {
        let path = String::from_utf8_lossy(path);
        let is_drive = |part: &str| matches!(part.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic());
        let is_of_windows = path.contains('\\') || path.split('/').any(is_drive);
        let parts = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."));
        let parts = parts.filter(|part| !is_of_windows || *part != "?" && !is_drive(part));
        let parts: Option<Vec<String>> = parts.map(|part| (part != "..").then(|| part.to_owned())).collect();
        let mut parts = parts?;
        // The other one is a link to this one on all systems.
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

    /// The rest of the path below the directory of a kubelet, wherever that is. A program or log file named `kubelet` does not count.
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
            "/root/.ssh",
            "/home/alice/.ssh/id_ed25519",
            "/opt/builds/.aws/credentials",
            "/root/.config/gcloud",
            "/run/systemd/private",
            "/var/run/dbus/system_bus_socket",
            "/mnt/stateful_partition/var/lib",
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
            "/run/systemd/resolve",
            "/home/alice/.config/nvim",
            "/var/lib/csi-hostpath-data",
            "/tmp",
        ] {
            assert!(!holds_credentials(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_host_runs_code_from_directories_above_and_below() {
        for path in [
            "/etc/cron.d",
            "/etc//cron.daily/./x",
            "/etc",
            "/var/spool",
            "/etc/systemd/system/kubelet.service.d",
            "/usr/local/bin/",
            "/lib/modules",
            "/opt",
            "/opt/cni/bin",
            "/etc/cni/net.d",
            "/etc/passwd",
            "/sys",
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/rdma",
            "/tmp/../etc",
        ] {
            assert!(runs_code(path.as_bytes()), "{path}");
        }
        for path in [
            "/etc/localtime",
            "/etc/ssl/certs",
            "/etc/machine-id",
            "/usr/share/zoneinfo",
            "/usr/src",
            "/opt/local-path-provisioner/pvc-1",
            "/sys/class/net",
            "/sys/fs/bpf",
            "/var/log",
            "/var/lib/node_exporter",
            "/tmp",
            "/mnt/disks",
            "/etc/cron.days",
        ] {
            assert!(!runs_code(path.as_bytes()), "{path}");
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
