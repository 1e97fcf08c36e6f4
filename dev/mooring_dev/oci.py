"""Write a container image as an OCI layout in a tar file, without an engine.

Enough for programs that need no distribution: the pause container of the cluster, and images that
tests make.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True)
class File:
    """A file in the image: its content, or where its link points."""

    content: bytes = b""
    mode: int = 0o644
    link: str | None = None


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o644
    archive.addfile(entry, io.BytesIO(data))


def _layer(files: Mapping[str, File]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("tmp", "etc", "bin", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for path, file in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = file.mode
            if file.link is not None:
                entry.type = tarfile.SYMTYPE
                entry.linkname = file.link
                archive.addfile(entry)
                continue
            entry.size = len(file.content)
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def write_image(
    target: Path,
    name: str,
    files: Mapping[str, File],
    *,
    entrypoint: Sequence[str],
    user: str = "65532:65532",
) -> Path:
    """Write the image ``name`` (with its tag) holding ``files`` to ``target``."""
    layer = _layer(files)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": user, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    ).encode()
    config_digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor(f"{_MEDIA}.config.v1+json", config_digest, config),
            "layers": [_descriptor(f"{_MEDIA}.layer.v1.tar", layer_digest, layer)],
        }
    ).encode()
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    entry = _descriptor(f"{_MEDIA}.manifest.v1+json", manifest_digest, manifest)
    # Tools differ in which of the two annotations they take the name from.
    entry["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(target.name + ".part")
    with tarfile.open(staging, mode="w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", index)
        for digest, data in (
            (layer_digest, layer),
            (config_digest, config),
            (manifest_digest, manifest),
        ):
            _add(archive, f"blobs/sha256/{digest}", data)
    staging.rename(target)
    return target


def _descriptor(media_type: str, digest: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
