#!/usr/bin/env python3
"""Regenerates src/detection/registry/built_in_roles.jsonl: what the roles that every Kubernetes cluster has grant on secrets,
and which of their permissions let a subject gain others.

usage: built_in_roles.py CHECKOUT TAG...     CHECKOUT is a clone of kubernetes/kubernetes, TAG for example v1.20.2 v1.36.0
       built_in_roles.py modules TAG...     takes k8s.io/kubernetes at each tag from the Go module proxy, 10 to 40 MB each
       built_in_roles.py --check …     exit with status 1 if the file does not have all that the tags have

Reads plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata/*.yaml of each tag, which Kubernetes' own tests keep equal to
policy.go, controller_policy.go and namespace_policy.go. The rules of a role are those of all tags together, and of all roles
that its aggregation rule selects. Entries of the file that no tag has are kept: a role may have been removed since. A new minor
version is added with its last patch release; the file has one release at least of each from 1.20 on.
Needs PyYAML, and git or Go.
"""
import json, os, pathlib, subprocess, sys, tempfile, zipfile
import yaml

SOURCE = "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata"
OUTPUT = pathlib.Path(__file__).resolve().parents[2] / "src/detection/registry/built_in_roles.jsonl"

# The resources that src/detection/registry/privileges.rs knows, by API group.
RELEVANT = {
    "": {"secrets", "users", "groups", "serviceaccounts", "serviceaccounts/token", "nodes/proxy", "pods/exec", "pods/attach",
         "pods/portforward", "pods/proxy", "pods/ephemeralcontainers"},
    "rbac.authorization.k8s.io": {"roles", "clusterroles"},
    "authentication.k8s.io": {"uids", "userextras"},
    "certificates.k8s.io": {"certificatesigningrequests/approval", "certificatesigningrequests/nodeclient",
                            "certificatesigningrequests/status", "signers"},
    "apiregistration.k8s.io": {"apiservices"},
    "admissionregistration.k8s.io": {"mutatingwebhookconfigurations", "validatingwebhookconfigurations",
                                     "mutatingadmissionpolicies", "mutatingadmissionpolicybindings"},
}


def git(checkout, *arguments):
    return subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True).stdout


def files_of(checkout, tag):
    """The files with roles of one version, by name."""
    if checkout != "modules":
        paths = git(checkout, "ls-tree", "--name-only", tag, SOURCE + "/").split()
        return {path: lambda path=path: git(checkout, "show", f"{tag}:{path}") for path in paths}
    # Each in a cache of its own: unpacked, a version has 300 MB.
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "GOMODCACHE": cache, "GOFLAGS": "-modcacherw"}
        found = subprocess.run(["go", "mod", "download", "-json", f"k8s.io/kubernetes@{tag}"], cwd=cache, env=environment,
                               check=True, capture_output=True, text=True)
        with zipfile.ZipFile(json.loads(found.stdout)["Zip"]) as module:
            texts = {path: module.read(path).decode() for path in module.namelist() if f"/{SOURCE}/" in path}
    return {path: lambda text=text: text for path, text in texts.items()}


def roles_of(checkout, tag):
    """The roles of one version by kind, namespace and name, and the labels that each aggregated role selects."""
    rules, labels, selectors = {}, {}, {}
    files = files_of(checkout, tag)
    if not files:
        sys.exit(f"{tag} has no {SOURCE}")
    for path, read in files.items():
        name = path.rsplit("/", 1)[-1]
        if not name.endswith(".yaml") or "role" not in name or "binding" in name:
            continue
        for item in yaml.safe_load(read())["items"]:
            metadata = item["metadata"]
            key = (item["kind"], metadata.get("namespace", ""), metadata["name"])
            rules.setdefault(key, []).extend(item.get("rules") or [])
            labels.setdefault(key, {}).update(metadata.get("labels") or {})
            for selector in (item.get("aggregationRule") or {}).get("clusterRoleSelectors") or []:
                selectors.setdefault(key, []).append(selector["matchLabels"])
    # Aggregated roles select each other: edit is a part of admin, view of edit.
    for _ in selectors:
        for key, wanted in selectors.items():
            for other, has in labels.items():
                if other != key and any(labels_of.items() <= has.items() for labels_of in wanted):
                    rules[key] = rules[key] + [rule for rule in rules[other] if rule not in rules[key]]
    return rules


def relevant(rule):
    """The rules of the table that a role's rule makes: one per group, with the resources and verbs that matter."""
    for group in rule.get("apiGroups") or []:
        if group != "*" and group not in RELEVANT:
            continue
        known = set().union(*RELEVANT.values()) if group == "*" else RELEVANT.get(group, set())
        resources = {r for r in rule.get("resources") or [] if r in known or r == "*" or r.startswith("*/") and any(k.endswith(r[1:]) for k in known)}
        for resource in resources:
            for verb in rule["verbs"]:
                yield group, resource, verb


def main():
    arguments = sys.argv[1:]
    check = arguments[:1] == ["--check"]
    checkout, *tags = arguments[check:]
    permissions, versions = {}, []
    if OUTPUT.exists():
        head, *lines = map(json.loads, OUTPUT.read_text().splitlines())
        versions = head["versions"]
        for role in lines:
            key = (role["kind"], role["namespace"], role["name"])
            permissions[key] = {p for rule in role["rules"] for p in relevant(rule)}
    before = {key: set(value) for key, value in permissions.items()}
    for tag in tags:
        for key, rules in roles_of(checkout, tag).items():
            found = {permission for rule in rules for permission in relevant(rule)}
            if found:
                permissions.setdefault(key, set()).update(found)
    if check:
        missing = {key: sorted(value - before.get(key, set())) for key, value in permissions.items() if value - before.get(key, set())}
        for key, value in missing.items():
            print(f"missing: {key}: {value}")
        sys.exit(bool(missing))
    head = {"source": f"kubernetes/kubernetes {SOURCE}", "versions": sorted({*versions, *tags})}
    with OUTPUT.open("w") as output:
        print(json.dumps(head), file=output)
        for (kind, namespace, name), granted in sorted(permissions.items()):
            if not granted:
                continue
            by_verbs = {}
            for group in sorted({p[0] for p in granted}):
                for resource in sorted({p[1] for p in granted if p[0] == group}):
                    verbs = tuple(sorted(p[2] for p in granted if p[:2] == (group, resource)))
                    by_verbs.setdefault((group, verbs), []).append(resource)
            rules = [{"apiGroups": [group], "resources": resources, "verbs": list(verbs)} for (group, verbs), resources in by_verbs.items()]
            print(json.dumps({"kind": kind, "namespace": namespace, "name": name, "rules": rules}), file=output)


main()
