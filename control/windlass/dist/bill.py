#!/usr/bin/env python3
"""bill.py VERSION COMMIT DATE SBOM LICENCES < `cargo metadata`: what is linked into the programs of a release, as CycloneDX, and its licences."""

import glob
import json
import os
import sys
import tomllib
import uuid

version, commit, date, sbom, licences = sys.argv[1:]
metadata = json.load(sys.stdin)
packages = {package["id"]: package for package in metadata["packages"]}
links = {
    node["id"]: [
        dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])
    ]
    for node in metadata["resolve"]["nodes"]
}
with open(os.path.join(metadata["workspace_root"], "Cargo.lock"), "rb") as file:
    sums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}

# Procedural macros run in the compiler: nothing is linked of them, nor of what only they use.
macros = {one for one, package in packages.items() if any("proc-macro" in target["kind"] for target in package["targets"])}

# From the programs along what is linked; what only builds or tests use is not in them.
reached, next_ones = set(), [i for i, p in packages.items() if p["name"] in ("windlass", "windlass-cni")]
while next_ones:
    one = next_ones.pop()
    if one not in reached | macros:
        reached.add(one)
        next_ones += links[one]
linked = sorted((packages[one] for one in reached), key=lambda p: (p["name"], p["version"]))
foreign = [p for p in linked if p["source"]]


def component(package):
    name, number = package["name"], package["version"]
    entry = {"type": "library", "bom-ref": f"pkg:cargo/{name}@{number}", "name": name, "version": number, "purl": f"pkg:cargo/{name}@{number}"}
    if package["license"]:
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if sums.get((name, number)):
        entry["hashes"] = [{"alg": "SHA-256", "content": sums[name, number]}]
    return entry


bill = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, commit)}",
    "version": 1,
    "metadata": {
        "timestamp": date,
        "component": {"type": "application", "bom-ref": "windlass", "name": "windlass", "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]},
    },
    "components": [component(package) for package in foreign],
}
with open(sbom, "w") as file:
    json.dump(bill, file, indent=1, sort_keys=True)
    file.write("\n")

texts = {}
for package in foreign:
    folder = os.path.dirname(package["manifest_path"])
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*"))):
        if os.path.isfile(path) and os.path.basename(path).upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")):
            with open(path, errors="replace") as file:
                texts.setdefault(file.read().strip(), []).append(f"{package['name']} {package['version']}")
with open(licences, "w") as file:
    file.write("What is linked into these programs, and under which licence:\n\n")
    file.writelines(f"{p['name']} {p['version']}: {p['license'] or 'see below'}\n" for p in foreign)
    for text, names in sorted(texts.items(), key=lambda item: item[1]):
        file.write(f"\n{'=' * 100}\n{', '.join(names)}\n{'-' * 100}\n{text}\n")
