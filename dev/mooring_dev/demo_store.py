"""A model store for a local cluster, and the example's models in it.

The store runs beside the cluster and ends with it: its process is put into the cluster's control
group, in which `cluster down` ends everything.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mooring_dev import cgroups
from mooring_dev.cluster import Cluster
from mooring_dev.images_catalog import REPOSITORY
from mooring_dev.paths import cluster_directory
from mooring_dev.processes import running_pid
from mooring_dev.s3 import S3Server

EXAMPLES = REPOSITORY / "examples"
SECRET = "model-store"  # noqa: S105 - the name of a Secret, not one
BUCKET = "models"


def start_store(cluster: Cluster) -> S3Server:
    """Start the store of ``cluster``, with new credentials when it ran before.

    Raises:
        DevError: the cluster is not a local one, or the server does not start.
    """
    directory = cluster_directory(cluster.name) / "model-store"
    store = S3Server.start(directory, address=cluster.host_address, with_owner=False)
    pid = running_pid(directory / "pids" / "versitygw")
    if pid is not None:
        _hand_to_cluster(cluster, pid)
    return store


def _hand_to_cluster(cluster: Cluster, pid: int) -> None:
    # A child group: in version 2 a group with controllers for its children has no processes.
    group = cgroups.Hierarchies.find().folders[-1] / f"mooring-{cluster.name}" / "model-store"
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text(str(pid))


def example() -> ModuleType:
    """``examples/onnx/make_model.py``: makes the models, and predicts without them."""
    path = EXAMPLES / "onnx" / "make_model.py"
    spec = importlib.util.spec_from_file_location("make_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def publish_examples(store: S3Server) -> dict[str, str]:
    """Put every model that the examples name into the store; return name to URI.

    ``corrupt`` is the first half of v1.
    """
    maker = example()
    models: dict[str, bytes] = {version: maker.build(version) for version in ("v1", "v2")}
    models["corrupt"] = models["v1"][:200]
    return {
        name: store.put(BUCKET, f"fraud/{name}/model.onnx", content)
        for name, content in models.items()
    }


def prepare_namespace(cluster: Cluster, name: str, store: S3Server) -> None:
    """Make a namespace that admits restricted pods only, with the Secret of the examples."""
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": name},
            "stringData": store.environment,
        },
    ]
    text = "\n---\n".join(json.dumps(each) for each in objects)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


def example_file(*parts: str) -> Path:
    """A file of ``examples/``."""
    return EXAMPLES.joinpath(*parts)


def expected(version: str, payments: Sequence[Sequence[float]]) -> list[float]:
    """What the model ``version`` should answer, by plain arithmetic."""
    found: list[float] = example().predict(version, payments)
    return found
