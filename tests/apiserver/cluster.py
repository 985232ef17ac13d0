"""A kube-apiserver with its etcd, for checks that need no node and no controller. Binaries are taken from the environment (KUBE_APISERVER,
ETCD, KUBECTL), from PATH, or from what tests/apiserver/build/build.sh built; without one of them the process exits with status 3."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

ADMINISTRATOR = ("token-of-the-administrator", "admin", "system:masters")


# They hold their ports until the process ends: a port of nobody can become that of another process or of a connection.
RESERVED = []


def free_port():
    """A port at which nobody listens. Only who sets SO_REUSEADDR, as servers do, can use it."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    RESERVED.append(probe)
    return probe.getsockname()[1]


def binary(name, variable):
    built = pathlib.Path(__file__).parents[2] / "target/tools/bin"
    found = os.environ.get(variable) or shutil.which(name) or shutil.which(name, path=built)
    if not found:
        print(f"not run: there is no {name} on the PATH or in {variable}; tests/apiserver/build/build.sh builds it")
        sys.exit(3)
    return found


class ApiServer:
    """The processes end with `stop`."""

    def __init__(self, folder):
        self.folder, self.processes, self.port = folder, [], free_port()
        self.kubectl_binary = binary("kubectl", "KUBECTL")
        self.apiserver, self.etcd = binary("kube-apiserver", "KUBE_APISERVER"), binary("etcd", "ETCD")
        self.version = subprocess.run([self.apiserver, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def spawn(self, name, *command):
        log = open(self.folder / f"{name}.out", "wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder))

    def start(self, *flags, users=(ADMINISTRATOR,)):
        """Users are a token, a name and a group each; the first is the administrator."""
        folder, client, peer = self.folder, free_port(), free_port()
        self.token = users[0][0]
        (folder / "tokens.csv").write_text("".join(f'{token},{name},{name},"{group}"\n' for token, name, group in users))
        (folder / "tokens.csv").chmod(0o600)
        subprocess.run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"], check=True, capture_output=True)
        self.spawn("etcd", self.etcd, "--data-dir", folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{client}",
                   "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
                   "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}",
                   "--unsafe-no-fsync")
        self.spawn("apiserver", self.apiserver, f"--etcd-servers=http://127.0.0.1:{client}", f"--secure-port={self.port}",
                   "--bind-address=127.0.0.1", f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
                   "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={folder}/sa.key",
                   f"--service-account-signing-key-file={folder}/sa.key", "--service-cluster-ip-range=10.0.0.0/24", *flags)
        for _ in range(600):
            if any(process.poll() is not None for process in self.processes):
                raise SystemExit("a process ended: " + "\n".join(p.read_text(errors="replace")[-1500:] for p in folder.glob("*.out")))
            if (folder / "certs/apiserver.crt").exists() and self.kubectl("get", "--raw", "/readyz").returncode == 0:
                return
            time.sleep(0.5)
        raise SystemExit("the apiserver did not become ready")

    def kubectl(self, *arguments, stdin=None, token=None):
        return subprocess.run([self.kubectl_binary, "--server", f"https://127.0.0.1:{self.port}", "--token", token or self.token,
                               "--certificate-authority", self.folder / "certs/apiserver.crt", "--cache-dir", self.folder / "cache", *arguments],
                              capture_output=True, text=True, input=stdin, env={**os.environ, "KUBECONFIG": os.devnull})

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
