"""The manifests of deploy/, rendered by kustomize and Helm. Tools and custom resource definitions come from the Go module proxy."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "target" / "tools" / "go"
CHART = ROOT / "deploy/helm/pullwatch"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
HELM = "helm.sh/helm/v3/cmd/helm@v3.19.5"
CUSTOM_RESOURCES = {
    "github.com/cert-manager/cert-manager@v1.21.2": "deploy/crds/*.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*.yaml",
    "github.com/kedacore/keda/v2@v2.21.0": "config/crd/bases/*.yaml",
}
MODES = ["daemonset", "webhook", "kafka"]
# A definition has a plain `=` as a value, which YAML 1.1 gives a type of its own.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fetch(*command, **options):
    """Runs a command that downloads, again after a failure: downloads fail for a moment now and then."""
    for wait in (5, 20, 60):
        done = subprocess.run(command, capture_output=True, text=True, **options)
        if done.returncode == 0:
            return done.stdout
        print(f"failed, again in {wait} s: {' '.join(map(str, command))}\n{done.stderr}", file=sys.stderr)
        time.sleep(wait)
    return run(*command, **options)


def install(package):
    TOOLS.mkdir(parents=True, exist_ok=True)
    binary = TOOLS / package.split("@")[0].removesuffix("/v5").rsplit("/", 1)[1]
    if not binary.exists():
        fetch("go", "install", package, env={**os.environ, "GOBIN": str(TOOLS), "GOFLAGS": "-buildvcs=false"})
    return binary


def module(name):
    return pathlib.Path(json.loads(fetch("go", "mod", "download", "-json", name, cwd=tempfile.gettempdir()))["Dir"])


def definition_files():
    """Files with the custom resource definitions of what the manifests use."""
    for name, pattern in CUSTOM_RESOURCES.items():
        files = sorted(module(name).glob(pattern))
        if not files:
            raise SystemExit(f"{name} has no {pattern}")
        yield from files


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def everything():
    """Documents by what they are rendered from."""
    kustomize, helm = install(KUSTOMIZE), install(HELM)
    rendered = {}
    for mode in MODES:
        rendered[f"kustomize {mode}"] = documents(run(kustomize, "build", ROOT / "deploy/kubernetes" / mode))
    with tempfile.TemporaryDirectory(dir=ROOT / "deploy/kubernetes") as folder:
        overlay = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["../daemonset"], "components": ["../monitoring"]}
        (pathlib.Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        rendered["kustomize daemonset with monitoring"] = documents(run(kustomize, "build", folder))
    rendered["kustomize kafka keda.yaml"] = [yaml.safe_load((ROOT / "deploy/kubernetes/kafka/keda.yaml").read_text())]
    rendered["static pod patch"] = [yaml.safe_load((ROOT / "deploy/kubernetes/static-pod/kube-apiserver+strategic.yaml").read_text())]
    all_values = "podMonitor.create=true,prometheusRule.create=true,dashboards.create=true,cluster=example,server.tokenSecret=pullwatch-server"
    for mode in [*MODES, "static-pod"]:
        for values in ["", all_values]:
            arguments = ["template", "pullwatch", CHART, "--namespace", "pullwatch", "--kube-version", "1.29.0", "--set", f"mode={mode}"]
            text = run(helm, *arguments, *(["--set", values] if values else []))
            rendered[f"helm {mode}{' with everything' if values else ''}"] = documents(text)
    return rendered
