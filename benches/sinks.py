#!/usr/bin/env python3
"""Measures `pullwatch run` with every kind of sink at once: the time from an event's line in the log to the request at Alertmanager's API,
what each receiver got, and the peak of resident memory.

usage: sinks.py [--binary FILE] [--seconds 30] [--rate 100] [--broker HOST:PORT]

The receivers are local: one HTTP server answers as Alertmanager, Loki, Elasticsearch, Splunk, an OpenTelemetry collector and a webhook do, another
takes syslog over TCP. The Kafka sink is added if there is a broker. Every event makes one alert.
"""
import argparse
import collections
import gzip
import http.server
import json
import os
import re
import socketserver
import statistics
import subprocess
import tempfile
import threading
import time

from process import Process, free_port
from run import HERE, event

# Every event is of a reader of its own, so that each is an alert of its own in Alertmanager.
READER = re.compile(rb"reader-(\d+)-")
RULES = """\
- rule: Read
  desc: d
  condition: ka.verb = get
  output: "%ka.user.name read %ka.target.name"
  priority: WARNING
"""


class Receivers:
    """The readers that were named to each receiver, with the time of the first request that named them."""

    def __init__(self):
        self.lock, self.seen = threading.Lock(), collections.defaultdict(dict)
        receivers = self

        class Http(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one packet: otherwise each answer waits 40 ms for an acknowledgement.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                name = self.path.split("/")[1]
                receivers.note(name, body)
                answer, status = b"{}", 200
                if name == "elastic":
                    items = [{"create": {"status": 201}}] * (body.count(b"\n") // 2)
                    answer = json.dumps({"errors": False, "items": items}).encode()
                elif name == "splunk":
                    answer = b'{"text":"Success","code":0}'
                elif name == "otlp":
                    answer = b""
                elif name == "loki":
                    answer, status = b"", 204
                self.send_response(status)
                if name == "otlp":
                    self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        class Syslog(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    receivers.note("syslog", line)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Http)
        self.syslog = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Syslog)
        self.syslog.daemon_threads = True
        for server in (self.http, self.syslog):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def note(self, name, body):
        now = time.monotonic()
        with self.lock:
            for number in READER.findall(body):
                self.seen[name].setdefault(int(number), now)


def sinks(receivers, folder, broker):
    base = f"http://127.0.0.1:{receivers.http.server_address[1]}"
    found = [
        "{type: stdout, format: json}",
        f"{{type: file, name: file, path: {folder}/alerts.jsonl}}",
        f"{{type: http, name: webhook, url: '{base}/webhook'}}",
        f"{{type: syslog, name: syslog, address: 'tcp://127.0.0.1:{receivers.syslog.server_address[1]}'}}",
        f"{{type: elasticsearch, name: elastic, url: '{base}/elastic', data_stream: logs-pullwatch.alert-default, format: ecs}}",
        f"{{type: splunk_hec, name: splunk, url: '{base}/splunk', token: t-0123456789}}",
        f"{{type: otlp, name: otlp, url: '{base}/otlp'}}",
        f"{{type: loki, name: loki, url: '{base}/loki/api/v1/push'}}",
        f"{{type: alertmanager, name: alertmanager, urls: ['{base}/alertmanager']}}",
    ]
    if broker:
        found.append(f"{{type: kafka, name: kafka, brokers: ['{broker}'], topic: alerts}}")
    return found


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    options.add_argument("--seconds", type=int, default=30)
    options.add_argument("--rate", type=int, default=100)
    options.add_argument("--broker")
    options = options.parse_args()
    receivers, total = Receivers(), options.seconds * options.rate
    with tempfile.TemporaryDirectory() as folder:
        log, out, port = os.path.join(folder, "audit.log"), os.path.join(folder, "out"), free_port()
        open(log, "w").close()
        with open(os.path.join(folder, "rules.yaml"), "w") as file:
            file.write(RULES)
        lines = "".join(f"- {sink}\n" for sink in sinks(receivers, folder, options.broker))
        config = os.path.join(folder, "pullwatch.yaml")
        with open(config, "w") as file:
            file.write(f"state_dir: {folder}/state\nrules: [{folder}/rules.yaml]\nsources:\n- {{type: file, name: audit, paths: ['{log}']}}\n"
                       f"sinks:\n{lines}server: {{listen: '127.0.0.1:{port}'}}\n")
        daemon = Process()
        daemon.port = port
        with open(out, "wb") as stdout, open(os.path.join(folder, "err"), "wb") as stderr:
            daemon.process = subprocess.Popen([os.path.abspath(options.binary), "run", "--config", config], cwd=folder, stdout=stdout, stderr=stderr)
        while daemon.metric("pullwatch_rules_loaded") < 1:
            time.sleep(0.05)
        written, start = {}, time.monotonic()
        with open(log, "ab", buffering=0) as file:
            for number in range(total):
                time.sleep(max(0, start + number / options.rate - time.monotonic()))
                written[number] = time.monotonic()
                file.write(event(f"id-{number}", "regcred").replace(b'"mallory"', b'"reader-%d-"' % number))
        names = ["webhook", "syslog", "elastic", "splunk", "otlp", "loki", "alertmanager"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and any(len(receivers.seen[name]) < total for name in names):
            time.sleep(0.1)
        memory = daemon.peak_memory()
        daemon.stop()
        with open(out, "rb") as stdout, open(os.path.join(folder, "alerts.jsonl"), "rb") as file:
            counts = {"stdout": len(set(READER.findall(stdout.read()))), "file": len(set(READER.findall(file.read())))}
    counts.update({name: len(receivers.seen[name]) for name in names})
    delays = sorted(at - written[number] for number, at in receivers.seen["alertmanager"].items())
    print(f"{total:,} alerts, {options.rate} a second; received: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    print(f"from the line to the request at Alertmanager's API: p50 {statistics.median(delays) * 1000:.0f} ms, "
          f"p99 {delays[len(delays) * 99 // 100] * 1000:.0f} ms, maximum {delays[-1] * 1000:.0f} ms")
    print(f"peak resident memory: {memory:.1f} MiB")


if __name__ == "__main__":
    main()
