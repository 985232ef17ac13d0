#!/usr/bin/env python3
"""A short story on a real kube-apiserver, and pullwatch beside it.

usage: live.py PATH/TO/pullwatch

Starts etcd, kube-apiserver and pullwatch, which both follows the audit log and receives the audit webhook; once with the audit policy of
`pullwatch policy check --recommend`, which logs no secret, and once with one that logs everything. Each step is done by a user of its own
with kubectl or HTTP, so that alerts can be compared with what the step did. The binaries are taken from the environment (KUBE_APISERVER,
ETCD, KUBECTL), from PATH, or from what build/build.sh built. Exit 0 when every exposure was reported (with exactly its credentials, where the
log shows them) and the quiet steps raised nothing, 1 when not, 3 when a binary is missing.
"""

import base64
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from cluster import ApiServer, free_port

TOKEN = "story-token-of-{}"
DOCKER = base64.b64encode(json.dumps({"auths": {"registry.example:5000": {"username": "robot", "password": "hunter2-hunter2"}}}).encode()).decode()
# Its name says nothing; its type does.
SECRETS = [
    ("shop", "web-pull", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": DOCKER}),
    ("shop", "blue", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": DOCKER}),
    ("shop", "tls", "Opaque", {"key": base64.b64encode(b"no registry").decode()}),
    ("bank", "regcred", "kubernetes.io/dockerconfigjson", {".dockerconfigjson": DOCKER}),
]
SHOP, ALL = {"shop/web-pull", "shop/blue"}, {"shop/web-pull", "shop/blue", "bank/regcred"}
# The answer names credentials without their data: a severe alert is neither required nor wrong.
NAMES_ONLY = {"bank/regcred", "names only"}
# User, what it does (arguments of kubectl, or an HTTP request), the credentials that it is handed. None: it must raise nothing.
STEPS = [
    ("reader-by-name", ["get", "secret", "-n", "shop", "web-pull", "-o", "yaml"], {"shop/web-pull"}),
    ("reader-of-a-list", ["get", "secrets", "-n", "shop", "-o", "json"], SHOP),
    ("reader-of-all", ["get", "secrets", "-A", "-o", "json"], ALL),
    # kubectl asks for a table: names and types, no data. Where the answer is not logged, data is presumed.
    ("reader-of-a-table", ["get", "secrets", "-n", "bank"], NAMES_ONLY),
    ("reader-by-selector", ["get", "secrets", "-A", "--field-selector", "type=kubernetes.io/dockerconfigjson", "-o", "json"], ALL),
    ("reader-by-http", ("GET", "/api/v1/namespaces/bank/secrets/regcred", None), {"bank/regcred"}),
    ("watcher", ("WATCH", "/api/v1/namespaces/shop/secrets?watch=1&timeoutSeconds=2", None), SHOP),
    ("dry-deleter", ("DELETE", "/api/v1/namespaces/shop/secrets/web-pull?dryRun=All&propagationPolicy=Foreground", None), {"shop/web-pull"}),
    ("patcher", ["annotate", "secret", "-n", "shop", "web-pull", "seen=yes"], {"shop/web-pull"}),
    ("reader-of-config", ["get", "configmaps", "-A"], None),
    ("reader-of-pods", ["get", "pods", "-A"], None),
    ("reader-of-another", ["get", "secret", "-n", "shop", "tls", "-o", "yaml"], set()),
]
DENIED = "denied"
EVERYTHING = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: RequestResponse}
"""


class Cluster(ApiServer):
    """An apiserver with audit log and webhook, and pullwatch beside it."""

    def __init__(self, pullwatch, folder, shows_objects):
        super().__init__(folder)
        self.pullwatch, self.shows_objects = pullwatch, shows_objects
        self.server, self.webhook = free_port(), free_port()

    def start(self):
        folder = self.folder
        policy = EVERYTHING if self.shows_objects else subprocess.run(
            [self.pullwatch, "policy", "check", "--recommend"], capture_output=True, text=True, check=True).stdout
        (folder / "policy.yaml").write_text(policy)
        # The apiserver sends its token over TLS only.
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        (folder / "webhook-token").write_text("webhook-token-of-the-story")
        (folder / "webhook.yaml").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "p",
            "clusters": [{"name": "p", "cluster": {"server": f"https://127.0.0.1:{self.webhook}/", "certificate-authority": str(folder / "tls.crt")}}],
            "users": [{"name": "a", "user": {"tokenFile": str(folder / "webhook-token")}}],
            "contexts": [{"name": "p", "context": {"cluster": "p", "user": "a"}}],
        }))
        (folder / "pullwatch.yaml").write_text(f"""
state_dir: {folder}/state
sources:
  - {{type: file, name: file, paths: [{folder}/audit.log]}}
  - {{type: webhook, name: webhook, listen: "127.0.0.1:{self.webhook}", token_file: {folder}/webhook-token,
     tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}}}
sinks:
  - {{type: file, name: file, path: {folder}/alerts.jsonl, format: json}}
server: {{listen: "127.0.0.1:{self.server}"}}
""")
        self.spawn("pullwatch", self.pullwatch, "run", "--config", folder / "pullwatch.yaml")
        groups = {"admin": "system:masters", DENIED: "nobody", **{user: "readers" for user, _, _ in STEPS}}
        super().start("--disable-admission-plugins=ServiceAccount", f"--audit-policy-file={folder}/policy.yaml",
                      f"--audit-log-path={folder}/audit.log", f"--audit-webhook-config-file={folder}/webhook.yaml", "--audit-webhook-batch-max-wait=1s",
                      users=[(TOKEN.format(user), user, group) for user, group in groups.items()])

    def context(self):
        return ssl.create_default_context(cafile=str(self.folder / "certs/apiserver.crt"))

    def http(self, user, verb, path, body=None):
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=verb, data=body and json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {TOKEN.format(user)}", "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, context=self.context()) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def create(self, path, body):
        status, answer = self.http("admin", "POST", path, body)
        if status not in (200, 201, 409):
            raise SystemExit(f"POST {path}: {status} {answer[:500]}")

    def alerts(self):
        path = self.folder / "alerts.jsonl"
        text = path.read_text() if path.exists() else ""
        # The last line may still be written.
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]

    def metric(self, name, source):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name}{{") and f'source="{source}"' in line:
                    return float(line.rsplit(" ", 1)[1])
        return 0.0


def tell(cluster):
    for namespace in {secret[0] for secret in SECRETS}:
        cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    for namespace, name, kind, data in SECRETS:
        cluster.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "type": kind, "data": data})
    cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", {
        "metadata": {"name": "readers"},
        "rules": [{"apiGroups": [""], "resources": ["secrets", "configmaps", "pods"], "verbs": ["get", "list", "watch", "patch", "delete"]}]})
    cluster.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {
        "metadata": {"name": "readers"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "readers"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers"}]})
    # The authorizer learns the binding from its own watch.
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": STEPS[0][0], "groups": ["readers"], "resourceAttributes": {"namespace": "shop", "verb": "get", "resource": "secrets"}}}
    for _ in range(600):
        status, answer = cluster.http("admin", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        if status == 201 and json.loads(answer)["status"]["allowed"]:
            break
        time.sleep(0.2)
    for user, what, _ in STEPS:
        if isinstance(what, list):
            done = cluster.kubectl(*what, token=TOKEN.format(user))
            if done.returncode:
                raise SystemExit(f"{user}: {done.stderr}")
        else:
            verb, path, body = what
            status, answer = cluster.http(user, "GET" if verb == "WATCH" else verb, path, body)
            if status != 200:
                raise SystemExit(f"{user}: {status} {answer[:300]}")
    if cluster.kubectl("get", "secret", "-n", "shop", "web-pull", token=TOKEN.format(DENIED)).returncode == 0:
        raise SystemExit("the denied user was not denied")


def compare(cluster):
    """Compares what was reported of each user with what its step did."""
    wrong = []
    alerts = cluster.alerts()
    ids = [alert["id"] for alert in alerts]
    if len(ids) != len(set(ids)):
        wrong.append(f"{len(ids) - len(set(ids))} alerts were delivered twice")
    by_user = {}
    for alert in alerts:
        user = alert["output_fields"].get("ka.user.name") or alert.get("actor")
        by_user.setdefault(user, []).append(alert)
    for user, _, expected in STEPS:
        found = by_user.get(user, [])
        named = {secret for alert in found for secret in (alert.get("registry") or {}).get("secrets", [])}
        severe = [alert["rule"] for alert in found if alert["priority"] in ("Warning", "Error", "Critical", "Alert", "Emergency")]
        if expected is NAMES_ONLY:
            if not named <= {"bank/regcred"} or not found:
                wrong.append(f"{user}: reported {sorted(named)}")
        elif expected is None and severe:
            wrong.append(f"{user}: reported as {severe}")
        elif expected and not severe:
            wrong.append(f"{user}: not reported")
        elif expected and cluster.shows_objects and named != expected:
            wrong.append(f"{user}: reported {sorted(named)}, expected {sorted(expected)}")
        elif not named <= (expected or set()):
            wrong.append(f"{user}: reported {sorted(named)}, which are not in the answer")
    if not by_user.get(DENIED):
        wrong.append("the denied attempt was not reported")
    text = (cluster.folder / "alerts.jsonl").read_text()
    if "hunter2" in text or DOCKER in text:
        wrong.append("a secret is in the alerts")
    return wrong, len(alerts)


def run(pullwatch, shows_objects):
    with tempfile.TemporaryDirectory(prefix="pullwatch-live-") as name:
        cluster = Cluster(pullwatch, pathlib.Path(name), shows_objects)
        try:
            cluster.start()
            tell(cluster)
            # The webhook's batches and the sink's last delivery: until everything has arrived, and nothing has changed for three seconds.
            # On a loaded machine there may be three seconds without a change before.
            unchanged, before = 0, None
            for _ in range(600):
                time.sleep(0.5)
                now = (len(cluster.alerts()), cluster.metric("pullwatch_source_events_total", "file"), cluster.metric("pullwatch_source_events_total", "webhook"))
                unchanged = unchanged + 1 if now == before and all(now) else 0
                before = now
                if unchanged >= 6 and not compare(cluster)[0]:
                    break
            wrong, total = compare(cluster)
            for source in ("file", "webhook"):
                if not cluster.metric("pullwatch_source_events_total", source):
                    wrong.append(f"no event came from the {source}")
            events = before
        finally:
            cluster.stop()
            if keep := os.environ.get("KEEP_LOGS"):
                shutil.copytree(cluster.folder, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("etcd"))
        for line in wrong:
            print(line)
        policy = "everything logged" if shows_objects else "recommended policy"
        print(f"{policy}: {len(STEPS) + 1} steps, {total} alerts, {events[1]:.0f} events from the file, {events[2]:.0f} from the webhook: {len(wrong)} differences")
        return bool(wrong)


binary_under_test = pathlib.Path(sys.argv[1]).resolve()
sys.exit(any([run(binary_under_test, shows_objects) for shows_objects in (False, True)]))
