"""The demo: from nothing to a served model, a better one, a worse one, and ones that cannot serve.

Told as a timeline. Everything it shows is asked of the cluster at that moment, nothing is staged.
"""

from __future__ import annotations

from typing import Any

import click

from mooring_dev import demo_canary, steps
from mooring_dev.demo_client import service_url
from mooring_dev.demo_model import condition, read_manifests
from mooring_dev.demo_setup import NAMESPACE, Story, farewell, set_up
from mooring_dev.demo_store import example, example_file, expected
from mooring_dev.demo_timeline import Timeline
from mooring_dev.errors import DevError

_TOLERANCE = 1e-5
_BROKEN = {
    "missing-object": "no model under its URI",
    "wrong-digest": "other bytes than the digest declares",
    "corrupt-model": "half an ONNX file",
}


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster to use or make.")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too).")
def demo(name: str, *, no_color: bool) -> None:
    """A model that serves, a good one promoted on evidence, a bad one rolled back, broken ones.

    The cluster stays, with everything in it; `make cluster-down` removes it. Exit codes: 0 it went
    as told, 1 it did not, with a message that says where.
    """
    if no_color:
        steps.no_colour()
    told = set_up(Timeline(colour=not no_color), name)
    chapters(told)
    with told.timeline.chapter("What there is now"):
        told.show("get", "mdep")
        told.plugin("history", "fraud")
        told.show("get", "deployments")
    farewell(told)


def chapters(told: Story) -> None:
    """What the demo tells once there is a cluster, and the story before its own chapters."""
    timeline = told.timeline
    with timeline.chapter("A model is declared, and what the next one is judged by"):
        demo_canary.first_model(told)
    with timeline.chapter("It is asked, from a pod in the cluster"):
        _ask(told, "v1")
    with timeline.chapter("A good model: promoted on evidence"):
        # While the step's time goes by: before it, their pods would start when others have to.
        demo_canary.good_model(told, meanwhile=_declare_broken_models)
        _ask(told, "v2")
    with timeline.chapter("Models that cannot be served"):
        _explain_broken_models(told)
    with timeline.chapter("A bad model: it fails for what it has never learnt"):
        demo_canary.bad_model(told)


def _ask(told: Story, version: str) -> None:
    maker = example()
    url = service_url("fraud", NAMESPACE)
    answer = told.client.infer(url, maker.request())
    given = answer["outputs"][0]["data"]
    wanted = expected(version, maker.PAYMENTS)
    told.timeline.say(f"POST {url}")
    rows = [
        (", ".join(f"{value:g}" for value in payment), f"{got:.6f}", f"{want:.6f}")
        for payment, got, want in zip(maker.PAYMENTS, given, wanted, strict=True)
    ]
    titles = (", ".join(maker.FEATURES), "fraud, by the server", f"{version}, by plain arithmetic")
    told.timeline.table(titles, rows)
    worst = max(abs(got - want) for got, want in zip(given, wanted, strict=True))
    if worst > _TOLERANCE:
        raise DevError(f"The server's answers are off by up to {worst:g}: that is a bug.")
    told.timeline.good(f"The same, within {worst:.1g}.")


def _declare_broken_models(told: Story) -> None:
    for name in _BROKEN:
        path = example_file("broken-model", f"{name}.yaml")
        told.model(name).apply(read_manifests(path)[0])
    told.timeline.say(f"(meanwhile three others are declared: {', '.join(_BROKEN)})")


def _explain_broken_models(told: Story) -> None:
    for name, what in _BROKEN.items():
        status = told.model(name).wait("an explanation", _explained)
        told.timeline.say(f"{name}: {what}")
        told.timeline.quote(condition(status, "Ready")["message"])
    told.show("get", "mdep")


def _explained(status: dict[str, Any]) -> bool:
    ready = condition(status, "Ready")
    return ready.get("status") == "False" and ready.get("reason") in {"FetchFailed", "ServerFailed"}
