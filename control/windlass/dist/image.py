#!/usr/bin/env python3
"""image.py OUT NAME ENTRYPOINT [PATH=FILE]...: an OCI archive of one layer, the same bytes from the same files."""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile

out, name, entrypoint, *pairs = sys.argv[1:]
BLOBS = "blobs/sha256"


def archive(files):
    """A tar of (path, mode, bytes), sorted, without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, mode, data in sorted(files):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def described(kind, data):
    digest = hashlib.sha256(data).hexdigest()
    blobs.append((f"{BLOBS}/{digest}", 0o644, data))
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


blobs = []
content = [(path.lstrip("/"), 0o755, open(file, "rb").read()) for path, file in (pair.split("=", 1) for pair in pairs)]
layer = described("layer.v1.tar", archive(content))
machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
config = described(
    "config.v1+json",
    encoded(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Entrypoint": [entrypoint]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        }
    ),
)
manifest = described(
    "manifest.v1+json",
    encoded({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]}),
)
manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
index = encoded({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]})
blobs += [("index.json", 0o644, index), ("oci-layout", 0o644, encoded({"imageLayoutVersion": "1.0.0"}))]
with open(out + ".new", "wb") as file:
    file.write(archive(blobs))
os.replace(out + ".new", out)
