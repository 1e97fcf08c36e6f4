"""The story's second half: the data moves, a Job makes the model anew, and it is promoted.

The example retrain-with-job, with windows of a minute. Nothing is staged: the alarm is the
operator's, the Job trains on what was asked about since, and how often a model is right is counted
here from what it answers.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mooring_dev import demo_samples
from mooring_dev.demo_client import service_url
from mooring_dev.demo_model import condition, is_true, read_manifests
from mooring_dev.demo_samples import Asking, day
from mooring_dev.demo_setup import NAMESPACE, Story
from mooring_dev.demo_store import BUCKET, example_file

#: The image of the training program.
IMAGE = "screening-train"
#: How much larger cells look under the new microscope.
MAGNIFICATION = 1.3
_NAME = demo_samples.NAME
_STEPS = [{"weight": 50, "duration": "10s"}]
#: Two windows of a minute, and a busy machine.
_PATIENCE = 240.0


def watched_model(told: Story, running: ExitStack) -> tuple[Asking, bytes]:
    """A second model, whose data is watched, and samples as ever that it is asked about."""
    timeline, cluster = told.timeline, told.cluster
    _, model = demo_samples.publish_first(told.store)
    with tempfile.TemporaryDirectory() as folder:
        reference = demo_samples.reference(model, Path(folder))
    template = example_file(demo_samples.FOLDER, "podtemplate.yaml")
    for text in (reference, template.read_text()):
        cluster.kubectl("apply", "--server-side", "-n", NAMESPACE, "-f", "-", input=text)
    path = example_file(demo_samples.FOLDER, "modeldeployment.yaml")
    manifest = read_manifests(path)[0]
    for part in ("monitoring", "retraining"):
        shown = _part(path, part)
        command = f"grep -A{shown.count(chr(10))} '^  {part}:' {path.relative_to(path.parents[2])}"
        timeline.shell(command, shown)
    timeline.say("(with windows of a minute, the shortest there is, and steps of seconds)")
    spec = manifest["spec"]
    spec["replicas"] = 1
    spec["rollout"] = {"steps": _STEPS}
    # 130,000 windows in a quarter of minutes: one of 130 may alarm for nothing.
    spec["monitoring"] |= {"window": "1m", "drift": {"falseAlarmsPerQuarter": 1000}}
    spec["retraining"] |= {
        "triggers": [{"drift": {}}],
        "minDataWindow": "1m",
        "cooldown": "1m",
        "deadline": "10m",
    }
    screening = told.model(_NAME)
    screening.apply(manifest)
    screening.wait_ready(seconds=_PATIENCE)
    asking = Asking(told.client, service_url(_NAME, NAMESPACE), day(1), told.store)
    running.enter_context(asking)
    timeline.say(f"Is a tumour malignant? Right in {_right(model, day(2)):.0%} of the samples.")
    return asking, model


def _part(path: Path, name: str) -> str:
    """The lines of a part of a manifest's spec, as they are written there."""
    lines = path.read_text().splitlines()
    first = lines.index(f"  {name}:")
    after = next(
        (n for n, line in enumerate(lines[first + 1 :], first + 1) if not line.startswith("   ")),
        len(lines),
    )
    return "\n".join(lines[first:after])


def data_moves(told: Story, asking: Asking, model: bytes) -> None:
    """The laboratory changes its microscope; the operator finds it out by itself."""
    screening = told.model(_NAME)
    status = screening.wait("a steady window", _steady, seconds=_PATIENCE)
    told.timeline.say("So far:")
    told.timeline.quote(condition(status, "Drifted")["message"])
    asking.become(day(3, magnification=MAGNIFICATION))
    begin = time.monotonic()
    right = _right(model, day(2, magnification=MAGNIFICATION))
    told.timeline.say(
        "The laboratory has got a new microscope: lengths come out 30 % larger, and the "
        f"model is right in {right:.0%}. No request fails, and nobody tells Mooring."
    )
    status = screening.wait("drift", lambda s: is_true(s, "Drifted"), seconds=_PATIENCE)
    told.timeline.good(f"Found after {time.monotonic() - begin:.0f} s, at the end of the window:")
    told.timeline.quote(condition(status, "Drifted")["message"])
    told.show("get", "mdep", _NAME)


def job_trains(told: Story) -> None:
    """One request, one Job, one new model."""
    screening = told.model(_NAME)
    screening.wait("a request", lambda _: bool(_requests(told)), seconds=_PATIENCE)
    told.show("get", "retrainingrequests,jobs")
    status = screening.wait("a candidate", lambda s: "candidate" in s, seconds=_PATIENCE)
    request = _requests(told)[0]
    window, result = request["spec"]["dataWindow"], request["status"]["result"]
    told.timeline.good(f"Made anew from the samples of {window['start']} to {window['end']}:")
    told.timeline.quote(status["candidate"]["modelUri"])
    measured = ", ".join(f"{name} {value}" for name, value in result["metrics"].items())
    told.timeline.quote(f"on tumours that it has not seen: {measured}")


def new_model(told: Story) -> None:
    """The result goes through the steps like any other model; then its data is what is normal."""
    screening = told.model(_NAME)
    screening.wait(
        "its share of the traffic",
        lambda s: bool(s.get("candidate", {}).get("weight")) or _promoted(s),
        seconds=_PATIENCE,
    )
    told.plugin("get", _NAME)
    status = screening.wait("the retrained model", _promoted, seconds=_PATIENCE)
    uri = status["stable"]["modelUri"]
    content = told.store.get(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"))
    right = _right(content, day(2, magnification=MAGNIFICATION))
    told.timeline.good(f"Promoted on evidence, spec untouched. It is right in {right:.0%}.")
    screening.wait("the alarm's end", _calm_again, seconds=_PATIENCE)
    told.timeline.good("And the alarm has ended: this data is normal to the new model.")
    told.show("get", "mdep")
    (request,) = _requests(told)
    told.timeline.say(f"Asked once, whatever happened meanwhile: {request['metadata']['name']}.")


def _requests(told: Story) -> list[dict[str, Any]]:
    text = told.cluster.kubectl("get", "retrainingrequests", "-n", NAMESPACE, "-o", "json")
    found: list[dict[str, Any]] = json.loads(text)["items"]
    return found


def _right(model: bytes, samples: Any) -> float:
    """The share of ``samples`` that ``model`` tells right."""
    import numpy as np
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

    rows = {demo_samples.TENSOR: samples.measured.astype(np.float32)}
    (labels,) = InferenceSession(model).run(["label"], rows)
    return float((labels == samples.malignant).mean())


def _steady(status: dict[str, Any]) -> bool:
    return bool((status.get("drift") or {}).get("state") == "Steady")


def _promoted(status: dict[str, Any]) -> bool:
    return "/retrained/" in status["stable"]["modelUri"] and is_true(status, "Ready")


def _calm_again(status: dict[str, Any]) -> bool:
    return not is_true(status, "Drifted") and _steady(status)
