#!/usr/bin/env python3
"""Measures `pullwatch run` as a whole process: catching up with a backlog, and the time from an event's line in the log to its
alert on standard output. Resident memory in both.

usage: run.py [--binary FILE] [--log BIG.log] [--seconds 20] [--rate 1000]

The backlog is benches/make_log.py's. The process is bound to one core, as is the `grep -c` beside it. A log is caught up with when the
store has its end. The flow is `--rate` events a second in single writes, one in ten of which makes an alert.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from process import Process, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
PATTERN = r'"verb":"(get|list|watch)".*"resource":"secrets".*registry'


def event(audit_id, name):
    return json.dumps({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": audit_id, "stage": "ResponseComplete",
        "requestURI": f"/api/v1/namespaces/prod/{'secrets' if name else 'pods'}/{name or 'web-0'}", "verb": "get",
        "user": {"username": "mallory", "groups": ["system:authenticated"]}, "sourceIPs": ["192.0.2.7"], "userAgent": "curl/8",
        "objectRef": {"resource": "secrets" if name else "pods", "namespace": "prod", "name": name or "web-0", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-11-23T10:00:00.000000Z", "stageTimestamp": "2026-11-23T10:00:00.000100Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    }, separators=(",", ":")).encode() + b"\n"


class Daemon(Process):
    def __init__(self, binary, folder, log, stdout):
        self.port = free_port()
        command = [binary, "run", log, "--format", "json", "--state-dir", os.path.join(folder, "state"), "--listen", f"127.0.0.1:{self.port}"]
        self.started = time.monotonic()
        # An empty folder, so that no rules of the place are taken for the shipped ones.
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], cwd=folder, stdout=stdout, stderr=subprocess.DEVNULL)


def catch_up(binary, log):
    size = os.path.getsize(log)
    with open(log, "rb") as warm:
        while warm.read(1 << 24):
            pass
    start = time.monotonic()
    # Into a pipe: where its output is /dev/null, grep stops at the first match.
    subprocess.run(["taskset", "-c", "0", "grep", "-cE", PATTERN, log], env={**os.environ, "LC_ALL": "C"}, capture_output=True)
    grep = time.monotonic() - start
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(binary, folder, log, subprocess.DEVNULL)
        while daemon.metric("pullwatch_source_bytes_total") < size:
            time.sleep(0.01)
        took = time.monotonic() - daemon.started
        memory, cpu = daemon.peak_memory(), daemon.cpu_seconds()
        alerts = daemon.metric("pullwatch_alerts_total")
        daemon.stop()
    return size, grep, took, cpu, memory, alerts


def flow(binary, seconds, rate):
    written, alerted, delays = {}, set(), []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "audit.log")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        daemon = Daemon(binary, folder, path, subprocess.PIPE)

        def read():
            for line in daemon.process.stdout:
                now = time.monotonic()
                audit_id = json.loads(line)["event"]["auditID"]
                # A correlation says an event again.
                if audit_id not in alerted:
                    alerted.add(audit_id)
                    delays.append(now - written[audit_id])

        reader = threading.Thread(target=read)
        reader.start()
        while daemon.metric("pullwatch_build_info") < 1:
            time.sleep(0.05)
        start = time.monotonic()
        for number in range(seconds * rate):
            due = start + number / rate
            while (left := due - time.monotonic()) > 0:
                time.sleep(left)
            line = event(f"e{number}", f"registry-{number}" if number % 10 == 0 else None)
            written[f"e{number}"] = time.monotonic()
            os.write(log, line)
        while len(delays) < seconds * rate // 10 and time.monotonic() < start + seconds + 30:
            time.sleep(0.05)
        memory, cpu = daemon.peak_memory(), daemon.cpu_seconds()
        daemon.stop()
        reader.join()
    return delays, memory, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    parser.add_argument("--log")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=1000)
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    log = os.path.abspath(options.log) if options.log else os.path.join(tempfile.mkdtemp(), "audit.log")
    if not options.log:
        subprocess.run([sys.executable, os.path.join(HERE, "make_log.py"), log], check=True)
    runs = [catch_up(binary, log) for _ in range(options.runs)]
    size, _, _, _, _, alerts = runs[0]
    grep, took, cpu = (min(run[at] for run in runs) for at in (1, 2, 3))
    print(f"backlog: {size / 1e6:.0f} MB, {alerts:.0f} alerts, one core, fastest of {options.runs}")
    print(f"  grep -cE      {size / grep / 1e6:6.0f} MB/s")
    print(f"  run           {size / took / 1e6:6.0f} MB/s from the start of the process, {size / cpu / 1e6:.0f} MB per second of CPU time")
    print(f"  resident      {max(run[4] for run in runs):6.1f} MiB at most")
    delays, memory, cpu = flow(binary, options.seconds, options.rate)
    quantile = statistics.quantiles([delay * 1000 for delay in delays], n=1000)
    print(f"flow: {options.rate} events a second for {options.seconds} s, {len(delays)} alerts of {options.seconds * options.rate // 10}, one core")
    print(f"  write to standard output   p50 {quantile[499]:.2f} ms, p99 {quantile[989]:.2f} ms, most {max(delays) * 1000:.2f} ms")
    print(f"  resident                   {memory:.1f} MiB at most, {cpu / options.seconds * 100:.1f} % of a core")


if __name__ == "__main__":
    main()
