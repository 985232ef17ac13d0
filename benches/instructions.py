#!/usr/bin/env python3
"""Counts the instructions of a scan per event, which other load on the machine does not change. Needs valgrind.

usage: instructions.py [--binary FILE] [--base FILE | --baseline FILE | --write FILE] [--rules FILE]... [--limit PERCENT]

The recorded samples are scanned on one thread under callgrind, with one rule, whose literals few lines contain, and with the shipped rules.
What a scan of an empty log takes is subtracted. The counts are compared with those of an earlier version, either its binary (--base) or what
--write wrote (--baseline); the exit status is 1 if one grew by more than --limit percent. Hashing counts more than its time: valgrind has no
instructions for SHA-256.
"""
import argparse
import json
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


def measure(binary, rules, log, empty, folder):
    with open(log, "rb") as file:
        events = sum(1 for _ in file)
    return (instructions(binary, rules, log, folder) - instructions(binary, rules, empty, folder)) / events


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    earlier = options.add_mutually_exclusive_group()
    earlier.add_argument("--base", metavar="BINARY")
    earlier.add_argument("--baseline", metavar="FILE")
    earlier.add_argument("--write", metavar="FILE")
    options.add_argument("--rules", action="append", default=[])
    options.add_argument("--limit", type=float, default=3)
    options = options.parse_args()
    known, counts, grown = {}, {}, False
    if options.baseline:
        with open(options.baseline) as file:
            known = json.load(file)
    is_compared = options.base or options.baseline
    with tempfile.TemporaryDirectory() as folder:
        rule, empty = os.path.join(folder, "rule.yaml"), os.path.join(folder, "empty.log")
        with open(rule, "w") as file, open(empty, "w"):
            file.write(SPECIFICATION)
        print("| rules | log | instructions per event |" + (" before | change |" if is_compared else ""))
        print("| --- | --- | ---: |" + (" ---: | ---: |" if is_compared else ""))
        for title, flags in [("1 % about secrets", ["--secrets", "1"]), ("61 % about secrets", [])]:
            log = os.path.join(folder, "audit.log")
            make = [sys.executable, os.path.join(HERE, "make_log.py"), "--megabytes", "1", *flags, log]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            for rules in [rule, os.path.join(HERE, "..", "rules.d"), *options.rules]:
                name = f"{os.path.basename(rules)}, {title}"
                count = counts[name] = round(measure(options.binary, rules, log, empty, folder))
                row = f"| {os.path.basename(rules)} | {title} | {count:,} |"
                before = measure(options.base, rules, log, empty, folder) if options.base else known.get(name)
                if before:
                    change = 100 * (count / before - 1)
                    grown |= change > options.limit
                    row += f" {before:,.0f} | {change:+.1f} % |"
                print(row, flush=True)
    if options.write:
        with open(options.write, "w") as file:
            json.dump(counts, file, indent=2)
            file.write("\n")
    if grown:
        print(f"error: more instructions than before; if that is worth it, write {options.baseline or 'the baseline'} anew", file=sys.stderr)
    sys.exit(1 if grown else 0)


if __name__ == "__main__":
    main()
