#!/usr/bin/env python3
"""Compares pullwatch with grep, jq and rsigma on large audit logs: whole processes, page cache warm. Prints Markdown tables.

usage: compare.py [--megabytes N] [--runs N] [--binary FILE] [--rules FILE]...

Two logs are made from the recorded samples (make_log.py): one in which 1 % of the events are about secrets, and one that consists of a
recorded attack, in which 61 % are. Each --rules adds a row. Peers that are not installed are left out (jq, rsigma).

Every command runs once to warm up and then N times, in turn (jq and rsigma once); the fastest run counts, since other load on the machine
only slows it down.
CPU time is that of the process, user and system: it depends less on other load than the time that passes. Ratios are to grep in the same
run.
"""
import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATTERN = '"verb":"(get|list|watch)".*"resource":"secrets".*registry'
SPECIFICATION = """\
- rule: Registry Secret Access
  desc: Detect access to ImagePullSecrets
  condition: >
    kevt and ka.verb in (get,list,watch) and
    ka.target.resource = "secrets" and
    ka.target.name contains "registry"
  output: >
    Registry secret accessed (user=%ka.user.name
    secret=%ka.target.name ns=%ka.target.namespace)
  priority: WARNING
  tags: [k8s, secrets, registry]
"""
JQ = """
select((.verb == "get" or .verb == "list" or .verb == "watch")
  and .objectRef.resource == "secrets" and ((.objectRef.name // "") | contains("registry")))
"""
SIGMA = """\
title: Registry Secret Access
logsource: {product: kubernetes, service: audit}
detection:
  selection:
    verb: [get, list, watch]
    objectRef.resource: secrets
    objectRef.name|contains: registry
  condition: selection
level: medium
"""


def run(command, stdin, folder):
    """Returns the seconds that passed, the seconds of CPU time and the peak resident memory in KiB."""
    # With /dev/null as its output grep stops at the first match, so it writes to a file.
    path = os.path.join(folder, "out") if command[0] == "grep" else os.devnull
    environment = {**os.environ, "LC_ALL": "C"}
    with open(path, "wb") as out, open(os.devnull, "wb") as nothing, open(stdin or os.devnull, "rb") as source:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=source, stdout=out, stderr=nothing, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        sys.exit(f"{command} failed")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def measure(rows, runs, folder):
    """Returns for each row the least of each measure."""
    best = {name: (float("inf"), float("inf"), 0) for name, *_ in rows}
    for turn in range(runs + 1):
        # In turn, so that a slow moment of the machine affects all commands alike.
        for name, command, stdin, is_slow in rows:
            if is_slow and turn > 0:
                continue
            seconds, cpu, memory = run(command, stdin, folder)
            if turn or is_slow:
                old = best[name]
                best[name] = (min(old[0], seconds), min(old[1], cpu), max(old[2], memory))
    return best


def print_table(title, size, best):
    print(f"\n| {title} | GB/s | to `grep` | GB per second of CPU time | to `grep` | MiB resident |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    grep = best["`grep -cE`"]
    for name, (seconds, cpu, memory) in best.items():
        if "one gzip file" in name:
            # The first of four.
            seconds, cpu = 4 * seconds, 4 * cpu
        print(
            f"| {name} | {size / seconds / 1e9:.2f} | {grep[0] / seconds:.2f}× | {size / cpu / 1e9:.2f} | {grep[1] / cpu:.2f}× "
            f"| {memory / 1024:.0f} |"
        )


def compressed(log, folder):
    """The log as four gzip files, cut at lines."""
    size = os.path.getsize(log)
    paths = []
    with open(log, "rb") as file:
        for part in range(4):
            path = os.path.join(folder, f"part-{part}.log.gz")
            end = (part + 1) * size // 4
            with gzip.open(path, "wb", compresslevel=6) as out:
                # Line by line: what this process holds counts as memory of the processes that it starts.
                while file.tell() < end and (line := file.readline()):
                    out.write(line)
            paths.append(path)
    return paths


def machine(binary):
    """The processor, its cores, and the version that was measured."""
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    load = os.getloadavg()[0]
    return f"{version}; {os.cpu_count()} cores of {models[0] if models else 'an unknown processor'}; load before the start {load:.1f}."


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=256)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    options.add_argument("--rules", action="append", default=[])
    options = options.parse_args()
    print(machine(options.binary))
    with tempfile.TemporaryDirectory() as folder:
        rule, sigma = os.path.join(folder, "rule.yaml"), os.path.join(folder, "sigma.yml")
        for path, text in [(rule, SPECIFICATION), (sigma, SIGMA)]:
            with open(path, "w") as file:
                file.write(text)
        shipped = os.path.join(HERE, "..", "rules.d")

        def scan(rules, threads, *logs):
            return [options.binary, "scan", "--quiet", "--threads", str(threads), "--format", "json", "--rules", rules, *logs]

        for title, flags in [("1 % of the events about secrets", ["--secrets", "1"]), ("61 % about secrets", [])]:
            log = os.path.join(folder, "audit.log")
            make = [sys.executable, os.path.join(HERE, "make_log.py"), "--megabytes", str(options.megabytes), *flags, log]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            size = os.path.getsize(log)
            rows = [("`grep -cE`", ["grep", "-cE", PATTERN, log], None, False)]
            if shutil.which("jq"):
                rows.append(("`jq`, the same condition", ["jq", "-c", JQ, log], None, True))
            if shutil.which("rsigma"):
                rows.append(("`rsigma`, the same rule", ["rsigma", "engine", "eval", "-r", sigma], log, True))
            rows.append(("one rule on verb, resource and name", scan(rule, 1, log), None, False))
            rows.append(("shipped rules", scan(shipped, 1, log), None, False))
            rows.append(("shipped rules, two threads", scan(shipped, 2, log), None, False))
            rows += [(os.path.basename(path), scan(path, 1, log), None, False) for path in options.rules]
            if flags:
                parts = compressed(log, folder)
                rows.append(("shipped rules, four gzip files", scan(shipped, 1, *parts), None, False))
                rows.append(("shipped rules, four gzip files, two threads", scan(shipped, 2, *parts), None, False))
                rows.append(("shipped rules, one gzip file", scan(shipped, 1, parts[0]), None, False))
                rows.append(("shipped rules, one gzip file, two threads", scan(shipped, 2, parts[0]), None, False))
            print_table(title, size, measure(rows, options.runs, folder))


if __name__ == "__main__":
    main()
