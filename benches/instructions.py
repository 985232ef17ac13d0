#!/usr/bin/env python3
"""Counts the instructions of a scan per event, which other load on the machine does not change. Needs valgrind.

usage: instructions.py [--binary FILE] [--base FILE] [--rules FILE]... [--limit PERCENT]

The recorded samples are scanned on one thread under callgrind, with one rule, whose literals few lines contain, and with the shipped rules. What a
scan of an empty log takes is subtracted. With --base, a binary of an earlier version, the counts are compared, and the exit status is 1
if one grew by more than --limit percent. Hashing counts more than its time: valgrind has no instructions for SHA-256.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

from compare import HERE, SPECIFICATION


def instructions(binary, rules, log, folder):
    out = os.path.join(folder, "callgrind.out")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary]
    command += ["scan", "--quiet", "--threads", "1", "--format", "json", "--rules", rules, log]
    report = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True).stderr
    return int(re.search(r"Collected : (\d+)", report).group(1))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    options.add_argument("--base")
    options.add_argument("--rules", action="append", default=[])
    options.add_argument("--limit", type=float, default=3)
    options = options.parse_args()
    grown = False
    with tempfile.TemporaryDirectory() as folder:
        rule, empty = os.path.join(folder, "rule.yaml"), os.path.join(folder, "empty.log")
        with open(rule, "w") as file, open(empty, "w"):
            file.write(SPECIFICATION)
        print("| rules | log | instructions per event |" + (" before | change |" if options.base else ""))
        print("| --- | --- | ---: |" + (" ---: | ---: |" if options.base else ""))
        for title, flags in [("1 % about secrets", ["--secrets", "1"]), ("61 % about secrets", [])]:
            log = os.path.join(folder, "audit.log")
            make = [sys.executable, os.path.join(HERE, "make_log.py"), "--megabytes", "1", *flags, log]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            with open(log, "rb") as file:
                events = sum(1 for _ in file)
            for rules in [rule, os.path.join(HERE, "..", "rules.d"), *options.rules]:
                counts = []
                for binary in filter(None, [options.binary, options.base]):
                    with_events, start = (instructions(binary, rules, path, folder) for path in (log, empty))
                    counts.append((with_events - start) / events)
                row = f"| {os.path.basename(rules)} | {title} | {counts[0]:,.0f} |"
                if options.base:
                    change = 100 * (counts[0] / counts[1] - 1)
                    grown |= change > options.limit
                    row += f" {counts[1]:,.0f} | {change:+.1f} % |"
                print(row, flush=True)
    sys.exit(1 if grown else 0)


if __name__ == "__main__":
    main()
