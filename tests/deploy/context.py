#!/usr/bin/env python3
"""Checks that what the sources include is in the context of the image's build: .dockerignore excludes everything that it does not name.

usage: context.py        Exit 0 when it is, 1 with the missing files when not.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INCLUDE = re.compile(r'include_(?:str|bytes)!\(\s*"([^"]+)"')
# The code of tests is not compiled: a module at the end of a file, or in a file of its own.
TESTS = re.compile(r"^\s*#\[cfg\(test\)\]\s+(?:#\[[^\]]*\]\s+)*mod\s+(\w+)\s*[;{]", re.M)

named = [line[1:].strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
missing, included = [], 0
sources = sorted((ROOT / "src").rglob("*.rs"))
tests = {name for source in sources for name in TESTS.findall(source.read_text())}
for source in sources:
    if tests & {source.stem, *source.relative_to(ROOT).parts}:
        continue
    for path in INCLUDE.findall(TESTS.split(source.read_text())[0]):
        included += 1
        file = (source.parent / path).resolve().relative_to(ROOT).as_posix()
        if not any(file == name or file.startswith(f"{name}/") for name in named):
            missing.append(f"{source.relative_to(ROOT)} includes {file}, which .dockerignore excludes")
print("\n".join([*missing, f"{included} files are included by the sources, {len(missing)} of them not in the context of the image's build"]))
sys.exit(bool(missing) or not included)
