#!/usr/bin/env python3
"""Compares pullwatch with grep on one large audit log: whole processes, page cache warm, one thread.

usage: compare.py [--megabytes N] [--runs N] [--log FILE] [--rules FILE]...

Without --log a log is generated from the sample log (make_log.py). Each --rules adds a row. Every command runs once to warm up and then
N times; the fastest run counts, since other load on the machine only slows it down. Ratios are to grep in the same run.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.join(HERE, "..", "target", "release", "pullwatch")
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


def run(command, folder):
    """Returns the wall-clock seconds and the peak resident memory in KiB."""
    # With /dev/null as its output grep stops at the first match, so it writes to a file.
    out = os.path.join(folder, "out") if command[0] == "grep" else os.devnull
    with open(out, "wb") as out, open(os.devnull, "wb") as nothing:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=nothing)
        memory = 0
        while child.poll() is None:
            try:
                with open(f"/proc/{child.pid}/status") as status:
                    memory = max([memory] + [int(line.split()[1]) for line in status if line.startswith("VmHWM:")])
            except (OSError, ValueError):
                pass
            time.sleep(0.002)
        seconds = time.perf_counter() - start
    if child.returncode not in (0, 1):
        sys.exit(f"{command} failed with exit status {child.returncode}")
    return seconds, memory


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=256)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--log")
    options.add_argument("--rules", action="append", default=[])
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or os.path.join(folder, "audit.log")
        if not options.log:
            subprocess.run([sys.executable, os.path.join(HERE, "make_log.py"), log, str(options.megabytes)], check=True)
        rule = os.path.join(folder, "rule.yaml")
        with open(rule, "w") as file:
            file.write(SPECIFICATION)
        scan = [BINARY, "scan", "--quiet", "--threads", "1", "--format", "json"]
        rows = [
            ("grep -cE", ["grep", "-cE", PATTERN, log]),
            ("pullwatch, one rule", scan + ["--rules", rule, log]),
            ("pullwatch, shipped rules", scan + ["--rules", os.path.join(HERE, "..", "rules.d"), log]),
        ]
        rows += [(f"pullwatch, {os.path.basename(path)}", scan + ["--rules", path, log]) for path in options.rules]
        best = {name: (float("inf"), 0) for name, _ in rows}
        for turn in range(options.runs + 1):
            # In turn, so that a slow moment of the machine affects all commands alike.
            for name, command in rows:
                seconds, memory = run(command, folder)
                if turn:
                    best[name] = (min(best[name][0], seconds), max(best[name][1], memory))
        size = os.path.getsize(log)
        grep = best["grep -cE"][0]
        print(f"{'':40} {'GB/s':>6} {'to grep':>8} {'MiB resident':>13}")
        for name, (seconds, memory) in best.items():
            print(f"{name:40} {size / seconds / 1e9:6.2f} {grep / seconds:7.1f}x {memory / 1024:13.1f}")


main()
