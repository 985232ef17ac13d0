#!/usr/bin/env python3
"""Renders the manifests of deploy/ and validates them.

usage: manifests.py PATH/TO/pullwatch

Every mode of the kustomizations and of the Helm chart is rendered with the real tools, checked against the schemas of the oldest and the
newest supported Kubernetes version (and of cert-manager, the Prometheus operator and KEDA for their kinds), and the configuration inside
is checked with `pullwatch config check`. Fields that a schema does not know are errors. Needs Go; tools and schemas come from the Go module
proxy and are kept in target/tools. Exit 0 when all hold.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jsonschema
import yaml

from render import CHART, HELM, definition_files, everything, install, module, run

# The oldest and the newest version that the manifests are written for.
KUBERNETES = ["v1.29.6", "v1.37.2"]
failures = []


def strict(schema):
    """Makes unknown members errors, as the apiserver does with fieldValidation=Strict."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        for member in schema.values():
            strict(member)
    elif isinstance(schema, list):
        for member in schema:
            strict(member)
    return schema


def kubernetes(version):
    """Schemas of the built-in kinds, by apiVersion and kind."""
    swagger = json.loads((module(f"k8s.io/kubernetes@{version}") / "api/openapi-spec/swagger.json").read_text())
    definitions = strict(swagger["definitions"])
    # Written as a number or as text.
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["integer", "string"]}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["number", "string"]}
    kinds = {}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            version_of = "/".join(part for part in (kind["group"], kind["version"]) if part)
            kinds[version_of, kind["kind"]] = {"$ref": f"#/definitions/{name}", "definitions": definitions}
    return kinds


def custom_resources():
    kinds = {}
    for path in definition_files():
        for document in yaml.safe_load_all(path.read_text()):
            if not document or document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema.setdefault("properties", {})["metadata"] = {"type": "object"}
                kinds[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return kinds


def validate(where, documents, schemas):
    checked = 0
    for document in documents:
        identity = document["apiVersion"], document["kind"]
        name = f"{where}: {document['kind']} {document['metadata']['name']}"
        if identity not in schemas:
            failures.append(f"{name}: no schema for {identity}")
            continue
        for error in jsonschema.Draft7Validator(schemas[identity]).iter_errors(document):
            failures.append(f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")
        checked += 1
    return checked


def check_configuration(binary, where, documents):
    """The configuration in the ConfigMap is one that `pullwatch run` takes, and the workload mounts what it needs."""
    texts = [d["data"]["pullwatch.yaml"] for d in documents if d["kind"] == "ConfigMap" and "pullwatch.yaml" in d.get("data", {})]
    if len(texts) != 1:
        failures.append(f"{where}: {len(texts)} ConfigMaps with pullwatch.yaml")
    for text in texts:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "pullwatch.yaml"
            path.write_text(text)
            done = subprocess.run([binary, "config", "check", *OFFLINE, path], capture_output=True, text=True, env={**os.environ, "POD_NAME": "pullwatch-0"})
            if done.returncode:
                failures.append(f"{where}: config check: {done.stdout}{done.stderr}")


def check_workload(where, documents):
    for document in documents:
        if document["kind"] not in ("DaemonSet", "StatefulSet"):
            continue
        pod = document["spec"]["template"]["spec"]
        container = pod["containers"][0]
        security = container["securityContext"]
        if not security["readOnlyRootFilesystem"] or security["allowPrivilegeEscalation"] or security["capabilities"]["drop"] != ["ALL"]:
            failures.append(f"{where}: the container is not confined")
        volumes = {v["name"] for v in pod["volumes"]} | {v["metadata"]["name"] for v in document["spec"].get("volumeClaimTemplates", [])}
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                failures.append(f"{where}: there is no volume {mount['name']}")
        # What the workload selects is what it labels.
        labels = document["spec"]["template"]["metadata"]["labels"]
        for key, value in document["spec"]["selector"]["matchLabels"].items():
            if labels.get(key) != value:
                failures.append(f"{where}: the selector does not match the pod's labels")


binary = pathlib.Path(sys.argv[1]).resolve()
OFFLINE = ["--offline"] if "--offline" in run(binary, "config", "check", "--help") else []
helm = install(HELM)
run(helm, "lint", "--strict", CHART)
rendered = everything()
for name, text in [("mode", "mode=none"), ("an unknown value", "replicaz=1")]:
    refused = subprocess.run([helm, "template", CHART, "--kube-version", "1.29.0", "--set", text], capture_output=True, text=True)
    if refused.returncode == 0:
        failures.append(f"the chart accepts {text}: the schema of its values has a gap")

for where, found in rendered.items():
    if not where.endswith(("keda.yaml", "patch")):
        check_configuration(binary, where, found)
        check_workload(where, found)
    for document in found:
        # The patch for the static pod, inside a ConfigMap.
        for name, text in document.get("data", {}).items() if document["kind"] == "ConfigMap" else []:
            if name.startswith("kube-apiserver"):
                found = [*found, yaml.safe_load(text)]
    rendered[where] = found

custom = custom_resources()
total = 0
for version in KUBERNETES:
    schemas = {**kubernetes(version), **custom}
    for where, found in rendered.items():
        total += validate(f"{version} {where}", found, schemas)

for failure in failures:
    print(failure)
print(f"{len(rendered)} renderings, {total} objects validated against {', '.join(KUBERNETES)}: {len(failures)} failures")
sys.exit(bool(failures))
