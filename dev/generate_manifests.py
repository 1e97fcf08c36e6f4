"""Render manifests/ (kustomize) from the chart, so that there is one truth about what is installed.

Usage: ``generate_manifests.py [--check]``; with ``--check`` nothing is written, and the exit code
is 1 when a file is stale. Needs helm, which it builds when it is missing.

The chart is rendered cluster-wide and for one namespace. What both renderings share is the base;
what only one of them has is its overlay; what only two replicas need is the overlay ``ha``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mooring_dev.binaries import ensure

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "mooring"
TARGET = ROOT / "manifests"
HEADER = "# Rendered from helm/mooring by `make manifests`: do not edit.\n"
NAMESPACE = "mooring-system"
SERVED_NAMESPACE = "models"
# Helm's own marks, and what kustomize does itself (the hash in the ConfigMap's name).
DROPPED_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
DROPPED_ANNOTATIONS = ("mooring.dev/config-checksum",)

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendering:
    """One rendering of the chart, without its hooks and without Helm's marks."""

    objects: dict[tuple[str, str, str], Manifest]
    config: str


def render(*values: str) -> Rendering:
    """Run ``helm template`` with ``--set`` for each of ``values``."""
    settings = [part for value in values for part in ("--set", value)]
    done = subprocess.run(
        [
            str(ensure("helm")), "template", "mooring", str(CHART), "--namespace", NAMESPACE,
            "--kube-version", "1.30.0", "--no-hooks", *settings,
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    objects: dict[tuple[str, str, str], Manifest] = {}
    config = ""
    for manifest in yaml.safe_load_all(done.stdout):
        if manifest is None:
            continue
        if manifest["kind"] == "ConfigMap":
            config = manifest["data"]["config.yaml"]
            continue
        unmark(manifest)
        meta = manifest["metadata"]
        objects[manifest["kind"], meta.get("namespace", ""), meta["name"]] = manifest
    return Rendering(objects, config)


def unmark(manifest: Manifest) -> None:
    """Take Helm's marks off an object and its pod template."""
    template = (manifest.get("spec") or {}).get("template")
    pods = [template["metadata"]] if isinstance(template, dict) and "metadata" in template else []
    for meta in (manifest["metadata"], *pods):
        for label in DROPPED_LABELS:
            meta.get("labels", {}).pop(label, None)
        for annotation in DROPPED_ANNOTATIONS:
            meta.get("annotations", {}).pop(annotation, None)


def documents(objects: Iterable[Manifest]) -> str:
    """The objects as one YAML file with our header."""
    return HEADER + yaml.safe_dump_all(objects, sort_keys=False, width=100, allow_unicode=True)


def kustomization(**fields: object) -> str:
    """A kustomization file; no name means nothing to say."""
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return HEADER + yaml.safe_dump({**head, **fields}, sort_keys=False, width=100)


def files() -> dict[str, str]:
    """Every file below manifests/ that is generated, with its content."""
    pair = render()
    single = render("replicas=1")
    namespaced = render("replicas=1", f"namespaces={{{SERVED_NAMESPACE}}}")
    shared = [key for key in single.objects if single.objects[key] == namespaced.objects.get(key)]
    only_pair = [pair.objects[key] for key in pair.objects if key not in single.objects]
    only_single = [single.objects[key] for key in single.objects if key not in shared]
    only_namespaced = [namespaced.objects[key] for key in namespaced.objects if key not in shared]
    namespace: Manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    generator = {"name": "mooring", "namespace": NAMESPACE, "files": ["config.yaml"]}
    merged = [{**generator, "behavior": "merge"}]
    return {
        "crds/kustomization.yaml": kustomization(resources=["crds.yaml"]),
        "base/kustomization.yaml": kustomization(
            resources=["operator.yaml"], configMapGenerator=[generator]
        ),
        "base/operator.yaml": documents([namespace, *(single.objects[key] for key in shared)]),
        "base/config.yaml": HEADER + single.config,
        "overlays/cluster/kustomization.yaml": kustomization(
            resources=["../../base", "cluster.yaml"]
        ),
        "overlays/cluster/cluster.yaml": documents(only_single),
        "overlays/namespaced/kustomization.yaml": kustomization(
            resources=["../../base", "namespace.yaml"], configMapGenerator=merged
        ),
        "overlays/namespaced/namespace.yaml": documents(only_namespaced),
        "overlays/namespaced/config.yaml": HEADER + namespaced.config,
        "overlays/ha/kustomization.yaml": kustomization(
            resources=["../cluster", "ha.yaml"], replicas=[{"name": "mooring", "count": 2}]
        ),
        "overlays/ha/ha.yaml": documents(only_pair),
    }


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    code = 0
    for name, content in files().items():
        path = TARGET / name
        if path.exists() and path.read_text() == content:
            continue
        if "--check" in arguments:
            print(f"manifests/{name} is stale: run make manifests", file=sys.stderr)
            code = 1
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
