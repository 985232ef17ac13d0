#!/usr/bin/env python3
"""pullwatch and a real Loki that refuses in the ways that Loki can: tenants, times, rates, sizes, restarts.

usage: limits.py PATH/TO/pullwatch PATH/TO/loki [CASE...]

Starts a Loki for each case, with samples/compose/loki.yml and the limits of the case, and checks that every alert arrives, or waits and says
why. Exit 0 when all cases hold, 1 when not.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from trial import ROOT, Loki, Pullwatch, event, free_port, request, samples, wait_for

MINUTE = 60 * 10**9
SELECTOR = '{job="pullwatch"}'


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


class Server:
    """A Loki of its own."""

    def __init__(self, binary, limits="", top="", auth=False):
        self.binary, self.folder = binary, tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.port = free_port()
        config = (ROOT / "samples/compose/loki.yml").read_text()
        config = re.sub(r"(?<=[ :])/loki", str(self.path), config)
        config = config.replace("  http_listen_port: 3100", f"  http_listen_address: 127.0.0.1\n  http_listen_port: {self.port}\n"
                                f"  grpc_listen_address: 127.0.0.1\n  grpc_listen_port: {free_port()}\n  log_level: warn")
        # Parts of Loki reach each other at the address of the machine by default.
        config = config.replace("  path_prefix:", "  instance_addr: 127.0.0.1\n  path_prefix:")
        config = config.replace("limits_config:\n", "limits_config:\n" + "".join(f"  {line}\n" for line in limits.split("; ") if line))
        if auth:
            config = config.replace("auth_enabled: false", "auth_enabled: true")
        (self.path / "loki.yml").write_text(config + top)
        self.start()

    def start(self):
        self.log = (self.path / "stderr.log").open("ab")
        self.process = subprocess.Popen([self.binary, f"-config.file={self.path}/loki.yml"], cwd=self.path, stdout=self.log, stderr=self.log)
        def is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"error: loki ended with {self.process.returncode}:\n{(self.path / 'stderr.log').read_text()}")
            return request(f"{self.url()}/ready")[0] == 200
        wait_for("loki is ready", is_ready)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def sink(self, more=""):
        return f"url: '{self.url()}/loki/api/v1/push', retry: {{max: 1s}}{more}"

    def stop(self, kill=True):
        self.process.kill() if kill else self.process.terminate()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        # Where a directory of the sample is not used, Loki writes to the working directory.
        known = {"chunks", "compactor", "rules", "tsdb-shipper-active", "tsdb-shipper-cache", "wal", "loki.yml", "stderr.log"}
        strange = {path.name for path in self.path.iterdir()} - known
        self.folder.cleanup()
        expect(not strange, f"Loki wrote {strange} beside its directories")


def stored(server, tenant=None):
    """The entries in Loki by alert id."""
    found = {}
    for at, line, labels, metadata in Loki(server.url(), tenant).entries(SELECTOR, time.time_ns() - 20 * 24 * 60 * MINUTE):
        found.setdefault(metadata.get("alert_id"), []).append((at, line, labels, metadata))
    return found


def all_arrived(server, pullwatch, events, tenant=None):
    """Every alert is in Loki, at least one for each of this number of events, and none in the dead letters."""
    expect(not pullwatch.dead(), f"{len(pullwatch.dead())} dead letters: {[letter.get('detail') for letter in pullwatch.dead()[:3]]}")
    alerts, found = {alert["id"] for alert in pullwatch.alerts()}, stored(server, tenant)
    expect(len(alerts) >= events and alerts == set(found), f"{len(alerts)} alerts, {len(found)} in Loki, {len(alerts - set(found))} missing")
    repeats = sum(len(entries) - 1 for entries in found.values())
    return found, f"{len(alerts)} alerts, {repeats} stored more than once"


def reads(count, at, step=MINUTE // 60, actor="mallory", first=0):
    return [event(first + i, f"{actor}-{i % 7}", "prod", f"registry-{first + i}", at + i * step) for i in range(count)]


def sample_logs(binary, loki):
    """The sample logs, compressed: all alerts arrive, once."""
    with Server(loki) as server, Pullwatch(binary, server.sink()) as pullwatch:
        pullwatch.append(samples(time.time_ns(), 30 * MINUTE))
        pullwatch.wait_until_delivered()
        found, says = all_arrived(server, pullwatch, 200)
        expect(all(len(entries) == 1 for entries in found.values()), says)
        return says


def uncompressed(binary, loki):
    """`gzip: false`."""
    with Server(loki) as server, Pullwatch(binary, server.sink(", gzip: false")) as pullwatch:
        pullwatch.append(reads(50, time.time_ns() - MINUTE))
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 50)[1]


def tenants(binary, loki):
    """`auth_enabled: true`: entries are the tenant's alone; without a tenant the sink waits."""
    with Server(loki, auth=True) as server:
        with Pullwatch(binary, server.sink(", tenant: security")) as pullwatch:
            pullwatch.append(reads(20, time.time_ns() - MINUTE))
            pullwatch.wait_until_delivered()
            says = all_arrived(server, pullwatch, 20, "security")[1]
            expect(not stored(server, "other"), "another tenant sees the entries")
        with Pullwatch(binary, server.sink()) as pullwatch:
            pullwatch.append(reads(20, time.time_ns() - MINUTE))
            wait_for("a refusal", lambda: pullwatch.metric("pullwatch_sink_failures_total", sink="loki", reason="rejected") > 2)
            expect(pullwatch.metric("pullwatch_sink_backlog_alerts", sink="loki") == 20 and not pullwatch.dead(), "alerts were given up")
        return says


def times(binary, loki):
    """Events of all ages, the newest first; some of the future. They have their own time if that is less than 45 minutes ago."""
    with Server(loki) as server, Pullwatch(binary, server.sink()) as pullwatch:
        now = time.time_ns()
        for i, age in enumerate([-60 * 24, -60, 0, 1, 30, 44, 46, 70, 24 * 60, 8 * 24 * 60, 400 * 24 * 60]):
            pullwatch.append(reads(3, now - age * MINUTE, step=1000, actor=f"age{age}", first=i * 100))
            time.sleep(0.3)
        pullwatch.wait_until_delivered()
        found, says = all_arrived(server, pullwatch, 33)
        own = sum(entries[0][3]["event_time"] == f"{alert['time']}" and abs(entries[0][0] - alert["output_fields"]["evt.time"]) < 1000
                  for alert in pullwatch.alerts() for entries in [found[alert["id"]]])
        expect(own == 12, f"{own} have the time of their event")
        return f"{says}; {own} with the time of their event"


def short_window(binary, loki):
    """A Loki that takes only entries up to ten minutes behind the newest of their stream: `max_chunk_age: 20m`."""
    top = "ingester: {max_chunk_age: 20m}\n"
    with Server(loki, top=top) as server, Pullwatch(binary, server.sink()) as pullwatch:
        now = time.time_ns()
        pullwatch.append(reads(3, now))
        pullwatch.wait_until_delivered()
        pullwatch.append(reads(400, now - 40 * MINUTE, step=MINUTE // 12, first=1000))
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 403)[1]


def old_samples(binary, loki):
    """A Loki that refuses entries older than ten minutes: `reject_old_samples_max_age`."""
    with Server(loki, "reject_old_samples_max_age: 10m") as server, Pullwatch(binary, server.sink()) as pullwatch:
        pullwatch.append(reads(400, time.time_ns() - 40 * MINUTE, step=MINUTE // 12))
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 400)[1]


def throttled(binary, loki, limits):
    """More alerts than a limit takes at once: they arrive all the same, after answers 429."""
    with Server(loki, limits) as server, Pullwatch(binary, server.sink()) as pullwatch:
        pullwatch.append(reads(300, time.time_ns() - MINUTE, step=1000))
        pullwatch.wait_until_delivered()
        refused = pullwatch.metric("pullwatch_sink_failures_total", sink="loki", reason="throttled")
        expect(refused > 0, "nothing was throttled")
        return f"{all_arrived(server, pullwatch, 300)[1]}; 429 {refused:.0f} times"


def rate(binary, loki):
    """A tenant's rate and burst below the size of one request: 429 for the whole request."""
    return throttled(binary, loki, "ingestion_rate_mb: 0.02; ingestion_burst_size_mb: 0.02")


def stream_rate(binary, loki):
    """A stream's rate and burst below the size of one request: 429, with a part of the entries kept."""
    return throttled(binary, loki, "per_stream_rate_limit: 8KB; per_stream_rate_limit_burst: 16KB")


def long_lines(binary, loki):
    """`max_line_size` below the length of some lines: 400, with the others kept."""
    with Server(loki, "max_line_size: 2KB") as server, Pullwatch(binary, server.sink(", format: falco")) as pullwatch:
        now = time.time_ns()
        long = [line.replace("curl/8.5.0", "x" * 3000) for line in reads(3, now, actor="long", first=500)]
        pullwatch.append(reads(20, now) + long + reads(20, now, first=1000))
        pullwatch.wait_until_delivered()
        found, says = all_arrived(server, pullwatch, 43)
        expect(all(len(entries[0][1]) <= 2048 for entries in found.values()), "a line is too long")
        return says


def longest_line(binary, loki):
    """The longest line that the sink sends, at Loki's default limit."""
    with Server(loki) as server, Pullwatch(binary, server.sink(", format: falco")) as pullwatch:
        now = time.time_ns()
        names = [{"metadata": {"name": f"registry-{i:04d}-{'n' * 200}", "namespace": "prod"}, "type": "kubernetes.io/dockerconfigjson"}
                 for i in range(3000)]
        line = reads(1, now)[0].replace('"level": "Metadata"', '"level": "RequestResponse"').replace("/secrets/registry-0", "/secrets")
        record = json.loads(line)
        record["verb"], record["responseObject"] = "list", {"kind": "SecretList", "apiVersion": "v1", "items": names}
        del record["objectRef"]["name"]
        pullwatch.append([json.dumps(record)] + reads(3, now, first=10))
        pullwatch.wait_until_delivered()
        found, says = all_arrived(server, pullwatch, 4)
        longest = max(len(entries[0][1].encode()) for entries in found.values())
        expect(longest <= 256 << 10, f"{longest} bytes")
        return f"{says}; longest line {longest} bytes"


def no_metadata(binary, loki):
    """`allow_structured_metadata: false` concerns every alert: the sink waits, and delivers once Loki takes them."""
    with Server(loki, "allow_structured_metadata: false") as server, Pullwatch(binary, server.sink()) as pullwatch:
        pullwatch.append(reads(40, time.time_ns() - MINUTE))
        wait_for("refusals", lambda: pullwatch.metric("pullwatch_sink_failures_total", sink="loki", reason="rejected") > 8)
        expect(not pullwatch.dead(), f"{len(pullwatch.dead())} alerts went to the dead letters")
        expect("allow_structured_metadata" in pullwatch.messages(), "the log does not say why")
        server.stop()
        config = server.path / "loki.yml"
        config.write_text(config.read_text().replace("allow_structured_metadata: false", "allow_structured_metadata: true"))
        server.start()
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 40)[1]


def blocked(binary, loki):
    """`block_ingestion_until`: Loki answers 260 and keeps nothing."""
    with Server(loki, "block_ingestion_until: '2100-01-01T00:00:00Z'") as server, Pullwatch(binary, server.sink()) as pullwatch:
        pullwatch.append(reads(10, time.time_ns() - MINUTE))
        wait_for("refusals", lambda: pullwatch.metric("pullwatch_sink_failures_total", sink="loki") > 2
                 or pullwatch.metric("pullwatch_sink_deliveries_total", sink="loki") > 0)
        expect(pullwatch.metric("pullwatch_sink_deliveries_total", sink="loki") == 0, "counted as delivered")
        server.stop()
        config = server.path / "loki.yml"
        config.write_text(config.read_text().replace("  block_ingestion_until: '2100-01-01T00:00:00Z'\n", ""))
        server.start()
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 10)[1]


def many_labels(binary, loki):
    """As many static labels as the configuration allows."""
    labels = "cluster: trial, " + ", ".join(f"label{i}: value{i}" for i in range(15))
    with Server(loki) as server, Pullwatch(binary, server.sink(), labels=labels) as pullwatch:
        pullwatch.append(reads(10, time.time_ns() - MINUTE))
        pullwatch.wait_until_delivered()
        found, says = all_arrived(server, pullwatch, 10)
        for entries in found.values():
            _, _, stream, metadata = entries[0]
            expect(all({**stream, **metadata}.get(f"label{i}") == f"value{i}" for i in range(15)), "a label is missing")
        return says


def long_values(binary, loki):
    """Names and labels as long as clients can make them."""
    with Server(loki) as server, Pullwatch(binary, server.sink()) as pullwatch:
        now = time.time_ns()
        pullwatch.append([event(i, character * 20000, "prod", f"registry-{i}", now) for i, character in enumerate("x\u00e9\u202e\u0001\U0001f600")])
        pullwatch.wait_until_delivered()
        return all_arrived(server, pullwatch, 5)[1]


def restarts(binary, loki):
    """Loki is killed twice and pullwatch once while alerts are delivered."""
    with Server(loki) as server, Pullwatch(binary, server.sink()) as pullwatch:
        first, now = 0, time.time_ns()
        for what in (server, pullwatch, server):
            for _ in range(10):
                pullwatch.append(reads(25, now, step=1000, first=first))
                first += 25
                time.sleep(0.05)
            what.stop(kill=True)
            pullwatch.append(reads(25, now, step=1000, first=first))
            first += 25
            time.sleep(1)
            what.start()
        pullwatch.wait_until_delivered(alerts=first)
        return all_arrived(server, pullwatch, first)[1]


CASES = [sample_logs, uncompressed, tenants, times, short_window, old_samples, rate, stream_rate, long_lines, longest_line, no_metadata, blocked,
         many_labels, long_values, restarts]

if __name__ == "__main__":
    binary, loki, *names = sys.argv[1:]
    failed = 0
    for case in CASES:
        if names and case.__name__ not in names:
            continue
        try:
            print(f"{case.__name__}: {case(binary, loki)}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"{case.__name__}: FAILED: {error}", flush=True)
    print(f"{len(names) or len(CASES)} cases, {failed} failed")
    sys.exit(bool(failed))
