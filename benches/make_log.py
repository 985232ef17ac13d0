#!/usr/bin/env python3
"""Writes a large audit log: copies of the sample log, each with new audit ids.

usage: make_log.py OUT.log [MEGABYTES] [SAMPLE.log.gz]
"""
import gzip
import os
import re
import sys


def main():
    out = sys.argv[1]
    wanted = int(sys.argv[2] if len(sys.argv) > 2 else 256) * 1_000_000
    here = os.path.dirname(os.path.abspath(__file__))
    default = os.path.join(here, "..", "samples", "audit", "request-response.log.gz")
    sample = gzip.open(sys.argv[3] if len(sys.argv) > 3 else default).read()
    # The first eight hex digits of each audit id are replaced: same length, never the same id again.
    parts = re.split(rb'("auditID":")[0-9a-f]{8}', sample)
    written = copy = 0
    with open(out, "wb") as log:
        while written < wanted:
            stamp = b"%08x" % (copy * 2654435761 % 2**32)
            pieces = [part + stamp if i % 2 else part for i, part in enumerate(parts)]
            written += log.write(b"".join(pieces))
            copy += 1
    print(f"{out}: {written} bytes, {copy} copies of the sample")


main()
