"""The story: models that are judged while they take traffic, told as a timeline.

A good model goes through its canary to the end; a bad one is rolled back by itself on what the
routers counted. Meanwhile the data of a second model is watched: it moves, a Job makes the model
anew, and that is promoted (``story_retraining``). Everything it shows is asked of the cluster and
its Prometheus at that moment.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import click

from mooring_dev import demo, prometheus, steps, story_retraining
from mooring_dev.demo import NAMESPACE, Story
from mooring_dev.demo_client import service_url
from mooring_dev.demo_model import condition, is_true, read_manifests
from mooring_dev.demo_store import BUCKET, example, example_file
from mooring_dev.demo_timeline import Timeline
from mooring_dev.errors import DevError
from mooring_dev.s3 import S3Server

#: How often the operator looks, and Prometheus scrapes.
INTERVAL = "5s"
_SETTINGS = (
    f"config.prometheus.url={prometheus.IN_CLUSTER_URL}",
    f"config.prometheus.interval={INTERVAL}",
)
STEPS = [{"weight": 10, "duration": "20s"}, {"weight": 50, "duration": "30s"}]
#: Seconds between two requests of one stream.
_PAUSE = 0.05
_PATIENCE = 240.0


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster to use or make.")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too).")
def story(name: str, *, no_color: bool) -> None:
    """A good canary promoted, a bad one rolled back; drift found, a model made anew, promoted.

    The cluster stays, with everything in it; `make cluster-down` removes it. Exit codes: 0 it went
    as told, 1 it did not, with a message that says where.
    """
    if no_color:
        steps.no_colour()
    timeline = Timeline(colour=not no_color)
    told, store = demo.set_up(timeline, name, _SETTINGS)
    with ExitStack() as running:
        trainer = story_retraining.Trainer(told.cluster.name)
        running.callback(trainer.end)
        with timeline.chapter("Prometheus, which scrapes every five seconds"):
            prometheus.install(told.cluster)
        with timeline.chapter("A model whose data is watched"):
            asking, watched = story_retraining.watched_model(told, store, running)
        with timeline.chapter("A model that says what the next one is judged by"):
            _first_model(told)
        with timeline.chapter("A good model: promoted on evidence"):
            _good_model(told)
        with timeline.chapter("A bad model: it fails for what it has never learnt"):
            _bad_model(told, store)
        with timeline.chapter("The data of the watched model moves"):
            story_retraining.data_moves(told, asking, watched)
        with timeline.chapter("A Job makes that model anew"):
            trainer.wait()
            story_retraining.job_trains(told)
        with timeline.chapter("What it made goes through the canary"):
            story_retraining.new_model(told, store)
    if asking.failed:
        raise DevError(f"{asking.failed} of {asking.sent} requests failed: {asking.failures[0]}")
    timeline.good(f"{asking.sent} requests for samples in all, none failed.")
    demo.farewell(timeline, told.cluster)


def _first_model(told: Story) -> None:
    path = example_file("auto-rollback", "modeldeployment.yaml")
    manifest = read_manifests(path)[0]
    # Minutes in the example, seconds here: nobody wants to watch an hour.
    manifest["spec"]["rollout"] = {"steps": STEPS, "progressDeadline": "2m"}
    manifest["spec"]["model"]["uri"] = told.uris["v1"]
    told.timeline.shell(f"cat {path.relative_to(path.parents[2])}", path.read_text())
    told.timeline.say("(with steps of seconds instead of minutes)")
    fraud = told.model("fraud")
    fraud.apply(manifest)
    fraud.wait_serving(told.uris["v1"])
    told.show("get", "mdep", "fraud")


def _requests(told: Story) -> ExitStack:
    """Payments of two kinds, near home and far away, for as long as a block runs."""
    url, maker = service_url("fraud", NAMESPACE), example()
    running = ExitStack()
    for payments in (maker.PAYMENTS[:1], maker.PAYMENTS[2:]):
        for _ in range(2):
            body = maker.request(payments)
            running.enter_context(told.client.stream(url, body, pause=_PAUSE))
    return running


def _good_model(told: Story) -> None:
    fraud = told.model("fraud")
    begin = time.monotonic()
    with _requests(told):
        demo.change_model(told, told.uris["v2"])
        fraud.wait("evidence", _judged, seconds=_PATIENCE)
        told.plugin("get", "fraud")
        fraud.wait_serving(told.uris["v2"], seconds=_PATIENCE)
    status = fraud.wait_ready()
    analysis = status["analysis"]
    told.timeline.good(f"Promoted after {time.monotonic() - begin:.0f} s of steps, on evidence:")
    told.timeline.quote(f"{analysis['verdict']}: {_numbers(analysis)}")


def _bad_model(told: Story, store: S3Server) -> None:
    uri = store.put(BUCKET, "fraud/v3/model.onnx", example().build("v3"))
    fraud = told.model("fraud")
    stable = fraud.status()["stable"]["revision"]
    told.timeline.say("v3 looks distances up in a table, and the table ends at 500 km.")
    with _requests(told):
        begin = time.monotonic()
        demo.change_model(told, uri)
        fraud.wait("its share of the traffic", demo.has_traffic, seconds=_PATIENCE)
        began = time.monotonic()
        told.timeline.say(f"it has {STEPS[0]['weight']} % of the requests")
        status = fraud.wait("the rollback", _taken_back, seconds=_PATIENCE)
        caught = time.monotonic() - began
    if status["stable"]["revision"] != stable:
        raise DevError("Another revision is stable: that is a bug.")
    told.timeline.good(
        f"Back at 0 %, {caught:.0f} s after it first got traffic "
        f"({time.monotonic() - begin:.0f} s after it was applied). Why:"
    )
    told.timeline.quote(condition(status, "RolledBack")["message"])
    told.plugin("explain", "fraud")
    told.show("get", "mdep", "fraud")
    told.timeline.say("The good model again, as Git would have it after a revert:")
    demo.change_model(told, told.uris["v2"])
    fraud.wait_ready()


def _judged(status: dict[str, Any]) -> bool:
    found = status.get("analysis", {}).get("metrics") or [{}]
    return "candidate" in status and bool(found[0].get("samples"))


def _taken_back(status: dict[str, Any]) -> bool:
    return is_true(status, "RolledBack") and status["stable"].get("weight") == 100


def _numbers(analysis: dict[str, Any]) -> str:
    return "; ".join(f"{one['name']}: {one['reason']}" for one in analysis["metrics"])
