#!/usr/bin/env python3
"""Runs every LogQL query of the dashboards and of docs/receivers against a real Loki, with alerts that pullwatch sends to it.

usage: record.py PATH/TO/pullwatch URL [--tenant ID] [--job JOB] [--version TEXT] [--write]

URL is that of a Loki without the path of an API, such as http://127.0.0.1:3100. pullwatch evaluates the sample logs and a few events more, and
sends its alerts with the label job=JOB (default pullwatch-trial), so that they can be told from others. Then the script checks that every alert
is in Loki, with the labels and structured metadata that the documentation names, and that every query has data, with the variables replaced as
Grafana replaces them. Exit 0 when all that holds, 1 when not.

With --write, the answers replace tests/data/loki/answers.json, with which tests/receivers/logql.rs compares the dashboards and the sink; use
an empty Loki then, and --job pullwatch. --version names a Loki that was built without a version.
"""

import argparse
import json
import re
import sys
import time

from trial import ROOT, Loki, Pullwatch, event, samples

MINUTE = 60 * 10**9
ANSWERS = ROOT / "tests/data/loki/answers.json"
LABELS = ["job", "rule", "priority", "cluster"]
METADATA = ["actor", "credential", "namespace", "registry", "exposure", "verb", "alert_id", "event_time"]
# Loki makes these itself.
OF_LOKI = ["service_name", "detected_level"]
# Entries and points of an answer that are kept.
MAX_ENTRIES, STEP = 8, "300s"


def queries():
    """File, title, type of result and expression of every query."""
    found = []
    for path in sorted((ROOT / "samples/grafana/dashboards").glob("*.json")):
        def collect(value, title, path=path):
            if isinstance(value, list):
                for inner in value:
                    collect(inner, title)
            elif isinstance(value, dict):
                title = value.get("title", value.get("name", title))
                source = value.get("datasource")
                if isinstance(source, dict) and source.get("type") == "loki" and isinstance(value.get("expr"), str):
                    found.append((path.relative_to(ROOT).as_posix(), title, value.get("queryType", "range"), value["expr"]))
                for inner in value.values():
                    collect(inner, title)
        collect(json.loads(path.read_text()), "")
    for path in sorted((ROOT / "docs/receivers").glob("*.md")):
        if path.name == "falcosidekick.md":  # About what falcosidekick sends to Loki.
            continue
        for block in re.findall(r"```logql\n(.*?)```", path.read_text(), re.S):
            for line in block.strip().splitlines():
                kind = "range" if line.startswith("{") else "instant"
                found.append((path.relative_to(ROOT).as_posix(), "", kind, line))
    return found


def with_values(expression, job, cluster, kind):
    """Replaces variables as Grafana does: `$__auto` is the step of a range query, and the range of an instant one."""
    values = {"$__range": "3600s", "$__auto": STEP if kind == "range" else "3600s", "$logjob": job, "$cluster": cluster}
    for name, value in values.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise SystemExit(f"error: unknown variable in {expression}")
    # The documentation has the default of the sink.
    return expression.replace('job="pullwatch"', f'job="{job}"')


def check_entries(loki, pullwatch, job, start):
    """Every alert is there, as the documentation says. Returns the names of labels and metadata."""
    entries = loki.entries(f'{{job="{job}",cluster="prod-eu"}}', start)
    by_id = {}
    for entry in entries:
        by_id.setdefault(entry[3].get("alert_id"), []).append(entry)
    wrong, labels, metadata = [], set(), set()
    alerts = {alert["id"]: alert for alert in pullwatch.alerts()}
    for name, alert in alerts.items():
        if name not in by_id:
            wrong.append(f"alert {name} ({alert['rule']}) is not in Loki")
            continue
        _, line, stream, more = by_id[name][0]
        labels |= set(stream)
        metadata |= set(more)
        expected = {"job": job, "rule": alert["rule"], "priority": alert["priority"], "cluster": "prod-eu"}
        if {key: value for key, value in stream.items() if key not in OF_LOKI} != expected:
            wrong.append(f"alert {name}: labels {stream}, expected {expected}")
        expected = {"alert_id": name, "event_time": alert["time"], "actor": alert["actor"], "registry": alert["registry_host"]}
        expected |= {key: alert[key] for key in ("credential", "namespace", "exposure", "verb")}
        expected = {key: value for key, value in expected.items() if value}
        if {key: value for key, value in more.items() if key not in OF_LOKI} != expected:
            wrong.append(f"alert {name}: metadata {more}, expected {expected}")
        if alert["rule"] not in line or alert["priority"].upper() not in line:
            wrong.append(f"alert {name}: line {line}")
    if pullwatch.dead():
        wrong.append(f"{len(pullwatch.dead())} alerts are in the dead letters")
    if set(labels) - set(OF_LOKI) != set(LABELS) or set(metadata) - set(OF_LOKI) != set(METADATA):
        wrong.append(f"labels {sorted(labels)}, metadata {sorted(metadata)}")
    print(f"{len(alerts)} alerts, {len(entries)} entries in Loki")
    return wrong, sorted(labels), sorted(metadata)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("pullwatch")
    parser.add_argument("url")
    parser.add_argument("--tenant")
    parser.add_argument("--job", default="pullwatch-trial")
    parser.add_argument("--version")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    loki = Loki(options.url, options.tenant)
    version = options.version or loki.version()
    tenant = f", tenant: '{options.tenant}'" if options.tenant else ""
    sink = f"url: '{loki.url}/loki/api/v1/push', job: '{options.job}'{tenant}"
    with Pullwatch(options.pullwatch, sink, "cluster: prod-eu") as pullwatch:
        start = time.time_ns() - 60 * MINUTE
        pullwatch.append(samples(time.time_ns() - 3 * MINUTE, 30 * MINUTE))
        # A credential that the documentation names, and two who read it.
        pullwatch.append(event(i, actor, "prod", "regcred", time.time_ns() - (2 - i) * MINUTE) for i, actor in enumerate(["mallory", "eve"]))
        pullwatch.wait_until_delivered()
        wrong, labels, metadata = check_entries(loki, pullwatch, options.job, start)
    end, recorded = time.time_ns(), []
    for file, title, kind, expression in queries():
        # All clusters, one, and two, as Grafana replaces variables with several values.
        for cluster in ("prod-us|prod-eu", "prod-eu", ".*"):
            sent = with_values(expression, options.job, cluster, kind)
            if kind == "instant":
                answer = loki.instant(sent, end)
            else:
                answer = loki.range(sent, start, end, step=STEP[:-1], limit=MAX_ENTRIES)
            count = len(answer["result"])
            if not count:
                wrong.append(f"no data: {sent}")
        print(f"{count:4} {answer['resultType']:8} {file} {title}: {sent}")
        answer.pop("stats", None)
        recorded.append({"file": file, "title": title, "expr": expression, "sent": sent, "type": kind, "answer": answer})
    print("\n".join(wrong))
    print(f"Loki {version}: {len(recorded)} queries, {len(wrong)} errors")
    if options.write and not wrong:
        ANSWERS.parent.mkdir(exist_ok=True)
        content = {"loki": version, "labels": labels, "metadata": metadata, "queries": recorded}
        ANSWERS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
