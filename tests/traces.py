#!/usr/bin/env python3
"""Holds pullwatch against the reference's regression traces.

usage: traces.py PATH/TO/pullwatch FOLDER

FOLDER holds k8s_audit_rules.yaml, traces/*.json (one event each) and traces.expected.json (the alerts of each trace with
rule_matching first). Exit 0 when nothing differs.
"""
import json
import os
import subprocess
import sys


def main():
    binary, folder = os.path.abspath(sys.argv[1]), sys.argv[2]
    with open(os.path.join(folder, "traces.expected.json")) as file:
        expected = json.load(file)
    rules = os.path.join(folder, "k8s_audit_rules.yaml")
    wrong = 0
    for name, want in expected.items():
        trace = os.path.join(folder, "traces", f"{name}.json")
        scan = [binary, "scan", "--rules", rules, "--rule-matching", "first", "--format", "json", "--quiet", trace]
        out = subprocess.run(scan, capture_output=True, check=True).stdout
        have = [json.loads(line) for line in out.splitlines()]
        if len(have) == len(want):
            have = [{key: alert.get(key) for key in wanted} for alert, wanted in zip(have, want)]
        if have != want:
            wrong += 1
            print(f"{name}: the alerts differ\n  want {json.dumps(want)}\n  have {json.dumps(have)}")
    print(f"{len(expected)} traces, {wrong} differ")
    sys.exit(1 if wrong else 0)


main()
