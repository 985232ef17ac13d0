"""A pullwatch beside a Loki: what record.py and limits.py share. Standard library only."""

import contextlib
import datetime
import gzip
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "samples/audit"
# Longest time that anything is waited for, in seconds: generous, since a debug build runs on a busy machine.
PATIENCE = 300


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, condition):
    """Waits until a condition returns something that is true, and returns that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"error: {what} did not happen within {PATIENCE} s")


def request(url, headers=None, data=None):
    """Returns status and body; status 0 if nothing answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers or {}), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def utc(nanoseconds):
    """A time as audit events have it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def event(number, actor, namespace, secret, at, verb="get"):
    """A read of a secret by name, at level Metadata."""
    return json.dumps({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": f"{number:08x}-0000-4000-8000-000000000000",
        "stage": "ResponseComplete", "requestURI": f"/api/v1/namespaces/{namespace}/secrets/{secret}", "verb": verb,
        "user": {"username": actor, "groups": ["system:authenticated"]}, "sourceIPs": ["203.0.113.7"], "userAgent": "curl/8.5.0",
        "objectRef": {"resource": "secrets", "namespace": namespace, "name": secret, "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200}, "requestReceivedTimestamp": utc(at), "stageTimestamp": utc(at),
    })


def samples(end, span):
    """The events of all sample logs, in their order, with times that are spread over the `span` nanoseconds before `end`."""
    lines = []
    for log in sorted(SAMPLES.glob("*.log.gz")):
        with gzip.open(log, "rt") as file:
            lines.extend(line for line in file.read().splitlines() if line)
    for i, line in enumerate(lines):
        record = json.loads(line)
        at = utc(end - span + span * i // len(lines))
        for key in ("requestReceivedTimestamp", "stageTimestamp"):
            if key in record:
                record[key] = at
        lines[i] = json.dumps(record)
    return lines


class Loki:
    """The HTTP API of a Loki."""

    def __init__(self, url, tenant=None):
        self.url = url.rstrip("/")
        self.headers = {"X-Scope-OrgID": tenant} if tenant else {}

    def get(self, path, **parameters):
        status, body = request(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", self.headers)
        if status != 200:
            raise SystemExit(f"error: HTTP {status} for {path} {parameters}: {body.strip()}")
        return json.loads(body)

    def version(self):
        return self.get("/loki/api/v1/status/buildinfo")["version"]

    def instant(self, query, at):
        return self.get("/loki/api/v1/query", query=query, time=at)["data"]

    def range(self, query, start, end, step=None, limit=None):
        parameters = {"query": query, "start": start, "end": end, "direction": "backward"}
        if step:
            parameters["step"] = step
        if limit:
            parameters["limit"] = limit
        return self.get("/loki/api/v1/query_range", **parameters)["data"]

    def entries(self, selector, start):
        """All entries of the streams since a time: pairs of time and line, labels and metadata together and apart."""
        found, end = [], time.time_ns() + 10**9
        while True:
            # Without the header, labels and metadata are in one object.
            headers = dict(self.headers) | {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
            parameters = urllib.parse.urlencode({"query": selector, "start": start, "end": end, "limit": 5000, "direction": "backward"})
            status, body = request(f"{self.url}/loki/api/v1/query_range?{parameters}", headers)
            if status != 200:
                raise SystemExit(f"error: HTTP {status} for {selector}: {body.strip()}")
            page = []
            for stream in json.loads(body)["data"]["result"]:
                for value in stream["values"]:
                    metadata = value[2].get("structuredMetadata", {}) if len(value) > 2 else {}
                    page.append((int(value[0]), value[1], stream["stream"], metadata))
            found.extend(page)
            if len(page) < 5000:
                return found
            end = min(entry[0] for entry in page)


class Pullwatch:
    """`pullwatch run` with a sink for a Loki, and a file with every alert beside it."""

    def __init__(self, binary, sink, labels="cluster: trial"):
        self.binary = str(pathlib.Path(binary).resolve())
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.server = f"127.0.0.1:{free_port()}"
        (self.path / "audit.log").touch()
        self.process = None
        self.configure(sink, labels)
        self.start()

    def configure(self, sink, labels):
        (self.path / "pullwatch.yaml").write_text(f"""
state_dir: {self.path}/state
labels: {{{labels}}}
server: {{listen: '{self.server}'}}
sources:
- {{type: file, name: audit, paths: ['{self.path}/audit.log'], poll: 20ms}}
sinks:
- {{type: file, name: file, path: '{self.path}/alerts.jsonl'}}
- {{type: loki, name: loki, dead_letter: {{path: '{self.path}/dead.jsonl'}}, {sink}}}
""")

    def start(self):
        self.log = (self.path / "stderr.log").open("ab")
        self.process = subprocess.Popen([self.binary, "run", "--config", str(self.path / "pullwatch.yaml")], stdout=subprocess.DEVNULL,
                                        stderr=self.log)
        def answers():
            if self.process.poll() is not None:
                raise SystemExit(f"error: pullwatch ended with {self.process.returncode}:\n{self.messages()}")
            return request(f"http://{self.server}/healthz")[0] in (200, 503)
        wait_for("pullwatch answers", answers)

    def stop(self, kill=False):
        if self.process:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait()
            self.process = None

    def messages(self):
        return (self.path / "stderr.log").read_text()

    def append(self, lines):
        with (self.path / "audit.log").open("a") as log:
            log.write("".join(f"{line}\n" for line in lines))

    def metric(self, name, **labels):
        """The sum of a counter's or gauge's series that have these labels."""
        total = 0.0
        for line in request(f"http://{self.server}/metrics")[1].splitlines():
            if line.startswith(name) and line[len(name)] in " {" and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def wait_until_delivered(self, alerts=None):
        """Waits until every line of the log is evaluated, or has led to this number of alerts, and no alert waits for a sink."""
        lines = (self.path / "audit.log").read_bytes().count(b"\n")
        def is_done():
            if alerts is None:
                # Since the start of the process.
                is_read = self.metric("pullwatch_source_events_total") >= lines
            else:
                is_read = len({alert["id"] for alert in self.alerts()}) >= alerts
            return is_read and self.metric("pullwatch_sink_backlog_alerts") == 0
        def is_still_done():
            # The sinks learn of alerts a moment after the source has counted their events.
            if not is_done():
                return False
            time.sleep(1)
            return is_done()
        wait_for("all alerts are delivered", is_still_done)

    def alerts(self):
        """Every alert, as Falco's JSON."""
        path = self.path / "alerts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def dead(self):
        path = self.path / "dead.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(kill=True)
        self.folder.cleanup()
