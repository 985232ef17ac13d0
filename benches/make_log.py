#!/usr/bin/env python3
"""Writes a large audit log: copies of recorded events, each with new audit ids.

usage: make_log.py [--megabytes N] [--secrets PERCENT] OUT.log [SAMPLE.log.gz]...

Without --secrets the samples are copied as they are (by default samples/audit/request-response.log.gz, in which 61 % of the events and
73 % of the bytes are about secrets). With --secrets this share of the events is about secrets (by default of all samples), spread evenly.
"""
import argparse
import glob
import gzip
import os
import re

SAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "samples", "audit")


def with_share_of_secrets(lines, percent):
    """All other events in their order, and as many of the events about secrets between them as the share demands, in turn."""
    secrets = [line for line in lines if b'"objectRef":{"resource":"secrets"' in line]
    others = [line for line in lines if b'"objectRef":{"resource":"secrets"' not in line]
    due = taken = 0.0
    for line in others:
        yield line
        due += percent / (100 - percent)
        while taken < due:
            yield secrets[int(taken) % len(secrets)]
            taken += 1


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=256)
    options.add_argument("--secrets", type=float, metavar="PERCENT")
    options.add_argument("out")
    options.add_argument("samples", nargs="*")
    options = options.parse_args()
    samples = options.samples
    if not samples:
        everything = sorted(glob.glob(os.path.join(SAMPLES, "*.log.gz")))
        samples = everything if options.secrets else [os.path.join(SAMPLES, "request-response.log.gz")]
    sample = b"".join(gzip.open(path).read() for path in samples)
    if options.secrets:
        sample = b"".join(with_share_of_secrets(sample.splitlines(keepends=True), options.secrets))
    # The first eight hex digits of each audit id are replaced: same length, never the same id again.
    parts = re.split(rb'("auditID":")[0-9a-f]{8}', sample)
    written = copy = 0
    with open(options.out, "wb") as log:
        while written < options.megabytes * 1_000_000:
            stamp = b"%08x" % (copy * 2654435761 % 2**32)
            pieces = [part + stamp if i % 2 else part for i, part in enumerate(parts)]
            written += log.write(b"".join(pieces))
            copy += 1
    print(f"{options.out}: {written} bytes, {copy} copies of the sample")


main()
