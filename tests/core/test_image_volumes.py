"""When the node pulls a model as a volume, and when the fetcher does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core.given import ONNX_RUNTIME
from tests.core.world import World

from mooring.core.observed import RenderSettings, RuntimeSource

DIGEST = "sha256:" + "0" * 64
TAG = "oci://registry.example.com/models/fraud:v7"


def pod(settings: RenderSettings, *, layout: str = "flat", **model: str) -> dict[str, Any]:
    """The spec of the first pod that is made for a model."""
    world = World.with_spec({"model": model, "runtime": {"name": "onnx"}})
    world.settings = settings
    source = RuntimeSource("ClusterModelRuntime", "onnx", {**ONNX_RUNTIME, "layout": layout})
    world.runtimes["onnx"] = source
    (made,) = (
        manifest
        for manifest in world.round().apply
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] != "fraud-router"
    )
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


def image(spec: dict[str, Any]) -> str:
    """The reference of the pod's image volume; empty where the fetcher brings the model."""
    (model,) = (volume for volume in spec["volumes"] if volume["name"] == "model")
    assert ("initContainers" in spec) == ("emptyDir" in model)
    return str(model.get("image", {}).get("reference", ""))


ON = RenderSettings(image_volumes=True)


@pytest.mark.parametrize(
    ("settings", "layout", "model", "pulled"),
    [
        (ON, "flat", {"uri": TAG, "digest": DIGEST}, True),
        (ON, "flat", {"uri": f"{TAG}@{DIGEST}"}, True),
        (ON, "flat", {"uri": f"oci://registry.example.com/models/fraud@{DIGEST}"}, True),
        # A tag may name something else for the next pod.
        (ON, "flat", {"uri": TAG}, False),
        # Nothing can be laid out on a volume that is mounted read-only.
        (ON, "triton", {"uri": TAG, "digest": DIGEST}, False),
        (ON, "flat", {"uri": "s3://models/fraud", "digest": DIGEST}, False),
        (RenderSettings(), "flat", {"uri": TAG, "digest": DIGEST}, False),
    ],
)
def test_the_node_pulls_what_is_pinned_and_needs_no_layout_where_it_can(
    settings: RenderSettings, layout: str, model: dict[str, str], pulled: bool
) -> None:
    wanted = f"registry.example.com/models/fraud@{DIGEST}" if pulled else ""
    assert image(pod(settings, layout=layout, **model)) == wanted


def test_a_digest_in_the_uri_is_a_digest_for_the_administrator() -> None:
    spec = pod(RenderSettings(require_digest=True), uri=f"{TAG}@{DIGEST}")
    assert "initContainers" in spec
