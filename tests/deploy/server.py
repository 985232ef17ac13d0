#!/usr/bin/env python3
"""Applies the manifests of deploy/ to a real kube-apiserver, as a dry run of the server.

usage: server.py

Starts etcd and kube-apiserver from the environment (KUBE_APISERVER, ETCD, KUBECTL), from PATH, or from what tests/apiserver/build/build.sh
built, installs the definitions of cert-manager, the Prometheus operator and KEDA, and applies every mode of the kustomizations and of the Helm chart with `--server-side --dry-run=server` and strict
validation. A workload only carries a template, which Pod Security does not refuse; therefore a pod of each template is created too, also as a
dry run, in a namespace with the labels of the mode. Needs Go for kustomize and Helm. Exit 0 when the server takes everything, 1 when not,
3 when a binary is missing.
"""

import copy
import json
import pathlib
import sys
import tempfile

import yaml

import render

sys.path.insert(0, str(render.ROOT / "tests/apiserver"))
from cluster import ApiServer

# A kube-apiserver's static pod as kubeadm writes it with kubeadm.yaml, reduced to what the patch refers to.
STATIC_POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-apiserver", "namespace": "kube-system"},
    "spec": {
        "hostNetwork": True,
        "containers": [{"name": "kube-apiserver", "image": "registry.k8s.io/kube-apiserver:v1.36.3", "command": ["kube-apiserver"]}],
        "volumes": [
            {"name": "pullwatch-config", "hostPath": {"path": "/etc/kubernetes/pullwatch", "type": "Directory"}},
            {"name": "audit-log", "hostPath": {"path": "/var/log/kubernetes/audit", "type": "DirectoryOrCreate"}},
        ],
    },
}
NAMESPACE = "pullwatch"
WORKLOADS = ("DaemonSet", "StatefulSet")


def text(documents):
    return yaml.safe_dump_all(documents)


def apply(server, documents, dry_run):
    arguments = ["apply", "--server-side", "--validate=strict", "--field-manager=test", "-f", "-"]
    return server.kubectl(*arguments, *(["--dry-run=server"] if dry_run else []), stdin=text(documents))


def install_definitions(server):
    names = []
    for path in render.definition_files():
        found = [d for d in yaml.safe_load_all(path.read_text()) if d and d.get("kind") == "CustomResourceDefinition"]
        if found:
            done = apply(server, found, dry_run=False)
            if done.returncode:
                raise SystemExit(f"{path}: {done.stderr}")
            names += [d["metadata"]["name"] for d in found]
    done = server.kubectl("wait", "--for=condition=Established", "--timeout=120s", *(f"crd/{name}" for name in names))
    if done.returncode:
        raise SystemExit(done.stderr)
    return len(names)


def pods_of(documents):
    """A pod of each workload's template, with the volumes that the workload's controller would add."""
    for document in documents:
        if document["kind"] in WORKLOADS:
            template = copy.deepcopy(document["spec"]["template"])
            for claim in document["spec"].get("volumeClaimTemplates", []):
                name = claim["metadata"]["name"]
                template["spec"].setdefault("volumes", []).append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}})
            metadata = {"name": f"{document['metadata']['name']}-0", "namespace": document["metadata"]["namespace"], **template["metadata"]}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def namespace_of(where, documents):
    """The namespace with its Pod Security labels. The chart leaves it to its user: the documentation says which level each mode needs."""
    for document in documents:
        if document["kind"] == "Namespace":
            return document
    level = "privileged" if "daemonset" in where else "restricted"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": level}}}


def patched_static_pod(server, patch):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pod.json"
        path.write_text(json.dumps(STATIC_POD))
        done = server.kubectl("patch", "--local", "--type=strategic", "-f", str(path), "-p", json.dumps(patch), "-o", "json")
    if done.returncode:
        raise SystemExit(f"the patch of the static pod: {done.stderr}")
    return json.loads(done.stdout)


def check(server):
    failures, objects, pods = [], 0, 0
    for where, documents in render.everything().items():
        if where == "static pod patch":
            documents = [patched_static_pod(server, documents[0])]
        else:
            # Real, since a dry run in a namespace needs it. Its labels are those of this mode.
            done = apply(server, [namespace_of(where, documents)], dry_run=False)
            if done.returncode:
                failures.append(f"{where}: {done.stderr.strip()}")
        wanted = [d for d in documents if d["kind"] != "Namespace"]
        # The chart carries the patch in a ConfigMap.
        patches = [d["data"]["kube-apiserver.yaml"] for d in documents if d["kind"] == "ConfigMap" and "kube-apiserver.yaml" in d["data"]]
        if "static-pod" in where and len(patches) != 1:
            failures.append(f"{where}: {len(patches)} patches of the static pod")
        wanted += [patched_static_pod(server, yaml.safe_load(patch)) for patch in patches]
        for document in wanted:
            # Helm gives the objects of a chart the namespace of the release.
            document["metadata"].setdefault("namespace", NAMESPACE)
        done = apply(server, wanted, dry_run=True)
        # Also a warning, for example of a field that is deprecated or of Pod Security, fails.
        if done.returncode or "Warning" in done.stderr:
            failures.append(f"{where}: {done.stderr.strip()}")
        objects += len(wanted)
        # Real as well: admission looks for a pod's service account.
        apply(server, [d for d in wanted if d["kind"] == "ServiceAccount"], dry_run=False)
        for pod in pods_of(documents):
            done = server.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text([pod]))
            if done.returncode or "Warning" in done.stderr:
                failures.append(f"{where}: a pod of the template: {done.stderr.strip()}")
            pods += 1
    return failures, objects, pods


def refuses(server):
    """What proves that the check can fail: an unknown field, and a pod that mounts the node's files in a restricted namespace."""
    failures = []
    unknown = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "dataa": {}}
    if apply(server, [unknown], dry_run=True).returncode == 0:
        failures.append("the server takes an unknown field: validation is not strict")
    apply(server, [namespace_of("restricted", [])], dry_run=False)
    pod = copy.deepcopy(STATIC_POD)
    pod["metadata"]["namespace"] = NAMESPACE
    if server.kubectl("create", "--dry-run=server", "-f", "-", stdin=text([pod])).returncode == 0:
        failures.append("the server takes a privileged pod in a restricted namespace: Pod Security is not enforced")
    return failures


def main():
    with tempfile.TemporaryDirectory(prefix="pullwatch-server-") as folder:
        server = ApiServer(pathlib.Path(folder))
        try:
            server.start("--allow-privileged=true")
            definitions = install_definitions(server)
            # A controller would create it.
            apply(server, [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "kube-system"}}], dry_run=False)
            failures, objects, pods = check(server)
            failures += refuses(server)
        finally:
            server.stop()
    for failure in failures:
        print(failure)
    print(f"{objects} objects and {pods} pods applied to {server.version} with {definitions} custom resource definitions: {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
