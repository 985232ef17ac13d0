#!/usr/bin/env python3
"""Makes the schemas in this folder from clones of github.com/elastic/ecs and github.com/ocsf/ocsf-schema, at released versions.

    extract.py ecs CLONE TAG > ecs-fields.csv
    extract.py ocsf CLONE TAG > ocsf-2004.json

The columns, field sets, class and objects are those of the files as they are, so that a newer release changes nothing else.
"""
import csv
import io
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def show(clone, tag, path):
    return subprocess.run(["git", "-C", clone, "show", f"{tag}:{path}"], check=True, capture_output=True, text=True).stdout


def commit(clone, tag):
    return subprocess.run(["git", "-C", clone, "rev-parse", f"{tag}^{{commit}}"], check=True, capture_output=True, text=True).stdout.strip()


def ecs(clone, tag):
    rows = list(csv.DictReader(io.StringIO(show(clone, tag, "generated/csv/fields.csv"))))
    sets = {line.split(".")[0].split(",")[0] for line in (HERE / "ecs-fields.csv").read_text().splitlines()[1:] if "." in line}
    kept = [row for row in rows if row["Field"].split(".")[0] in sets or "." not in row["Field"]]
    version = rows[0]["ECS_Version"]
    print(f"# Elastic Common Schema {version}, generated/csv/fields.csv of https://github.com/elastic/ecs at {tag} ({commit(clone, tag)}), "
          "columns Field, Type, Normalization; field sets used here. Made by extract.py.")
    for row in kept:
        print(",".join(row[name] for name in ("Field", "Type", "Normalization")))


class Ocsf:
    """Resolves attributes as the schema server does: what a class extends, what it includes, and types from the dictionary."""

    def __init__(self, clone, tag):
        self.clone, self.tag = clone, tag
        self.files = subprocess.run(["git", "-C", clone, "ls-tree", "-r", "--name-only", tag], check=True, capture_output=True,
                                    text=True).stdout.split("\n")
        self.dictionary = self.json("dictionary.json")["attributes"]

    def json(self, path):
        return json.loads(show(self.clone, self.tag, path))

    def named(self, folder, name):
        for path in self.files:
            if path.startswith(folder) and path.endswith(".json"):
                if path.rsplit("/", 1)[1] in (f"{name}.json", f"_{name}.json", f"{name.lstrip('_')}.json"):
                    found = self.json(path)
                    if found.get("name") in (name, None) or path.rsplit("/", 1)[1] == f"{name}.json":
                        return found
        raise SystemExit(f"no {name} in {folder}")

    def attributes(self, folder, name):
        item = self.named(folder, name)
        merged, constraints = {}, {}
        if "extends" in item:
            merged, constraints = self.attributes(folder, item["extends"])
        self.merge(merged, item.get("attributes", {}))
        constraints = item.get("constraints", constraints)
        return merged, constraints

    def merge(self, merged, attributes):
        included = attributes.get("$include", [])
        for path in [included] if isinstance(included, str) else included:
            # Attributes of a profile exist only in events that name the profile.
            if path.startswith("profiles/"):
                continue
            self.merge(merged, self.json(path).get("attributes", {}))
        for name, attribute in attributes.items():
            if name != "$include":
                merged[name] = {**merged.get(name, {}), **attribute}

    def resolved(self, folder, name):
        merged, constraints = self.attributes(folder, name)
        out = {}
        for name, attribute in sorted(merged.items()):
            known = self.dictionary.get(name, {})
            entry = {"type": attribute.get("object_type") or known.get("object_type") or attribute.get("type") or known.get("type", "")}
            if entry["type"] == "object_t":
                entry["type"] = attribute.get("object_type") or known.get("object_type")
            if known.get("is_array") or attribute.get("is_array"):
                entry["is_array"] = True
            entry["requirement"] = attribute.get("requirement", "optional")
            values = {**known.get("enum", {}), **attribute.get("enum", {})}
            if values:
                entry["enum"] = sorted(values, key=int) if all(key.lstrip("-").isdigit() for key in values) else sorted(values)
            out[name] = entry
        return out, constraints


def ocsf(clone, tag):
    schema, before = Ocsf(clone, tag), json.loads((HERE / "ocsf-2004.json").read_text())
    klass, _ = schema.resolved("events/", "detection_finding")
    objects = {}
    for name in before["objects"]:
        attributes, constraints = schema.resolved("objects/", name)
        objects[name] = {"attributes": attributes, **({"constraints": constraints} if constraints else {})}
    version = json.loads(show(clone, tag, "version.json"))["version"]
    source = (f"https://github.com/ocsf/ocsf-schema {version} at {tag} ({commit(clone, tag)}): class detection_finding (2004) with what it "
              "extends, and the objects used here, attributes resolved with dictionary.json. Made by extract.py")
    json.dump({"class": klass, "objects": objects, "source": source}, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    {"ecs": ecs, "ocsf": ocsf}[sys.argv[1]](*sys.argv[2:])
