"""The demo: from nothing to a served model, a better one, and ones that cannot be served.

Told as a timeline. Everything it shows is asked of the cluster at that moment, nothing is staged.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from mooring_dev import demo_chart, images, steps
from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import NAME as CLIENT
from mooring_dev.demo_client import Client, StreamResult, service_url
from mooring_dev.demo_model import RESOURCE, Model, condition, read_manifests
from mooring_dev.demo_store import (
    example,
    example_file,
    expected,
    prepare_namespace,
    publish_examples,
    start_store,
)
from mooring_dev.demo_timeline import Timeline
from mooring_dev.errors import DevError
from mooring_dev.images import Built
from mooring_dev.packages import ensure_packages
from mooring_dev.s3 import S3Server

NAMESPACE = "demo"
_TOLERANCE = 1e-5
_BROKEN = {
    "missing-object": "no model under its URI",
    "wrong-digest": "other bytes than the digest declares",
    "corrupt-model": "half an ONNX file",
}


@dataclass(frozen=True)
class Story:
    """What the chapters share, once the cluster is there."""

    timeline: Timeline
    cluster: Cluster
    client: Client
    uris: dict[str, str]

    def model(self, name: str) -> Model:
        """The ModelDeployment ``name`` of the demo's namespace."""
        return Model(self.cluster, NAMESPACE, name)

    def show(self, *arguments: str) -> None:
        """Run kubectl in the demo's namespace and show what it says."""
        output = self.cluster.kubectl(*arguments, "--namespace", NAMESPACE)
        self.timeline.shell(f"kubectl {shlex.join(arguments)} -n {NAMESPACE}", output)

    def plugin(self, *arguments: str) -> None:
        """Run kubectl mooring in the demo's namespace and show what it says."""
        command = [sys.executable, "-m", "mooring", *arguments, "--namespace", NAMESPACE]
        done = subprocess.run(
            [*command, "--kubeconfig", str(self.cluster.kubeconfig), "--no-color"],
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        self.timeline.shell(f"kubectl mooring {shlex.join(arguments)} -n {NAMESPACE}", said)


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster to use or make.")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too).")
def demo(name: str, *, no_color: bool) -> None:
    """A cluster, the operator, a model that serves, a better one, and ones that cannot.

    The cluster stays, with everything in it; `make cluster-down` removes it. Exit codes: 0 it went
    as told, 1 it did not, with a message that says where.
    """
    if no_color:
        steps.no_colour()
    timeline = Timeline(colour=not no_color)
    story, _ = set_up(timeline, name)
    with timeline.chapter("A model is declared"):
        _first_model(story)
    with timeline.chapter("It is asked, from a pod in the cluster"):
        _ask(story, "v1")
    with timeline.chapter("A new model takes over by a canary, while requests go on"):
        _second_model(story)
    with timeline.chapter("Models that cannot be served"):
        _broken_models(story)
    with timeline.chapter("A bad update of the model that serves"):
        _bad_update(story)
    with timeline.chapter("What there is now"):
        story.show("get", "mdep")
        story.show("get", "deployments,services,poddisruptionbudgets,networkpolicies")
        story.show("describe", "mdep", "fraud")
    farewell(timeline, story.cluster)


def set_up(timeline: Timeline, name: str, settings: Sequence[str] = ()) -> tuple[Story, S3Server]:
    """A cluster with Mooring in it, a model store with the example's models, and a client.

    ``settings`` are values of the chart.
    """
    cluster, built = _cluster_and_images(timeline, name)
    with timeline.chapter("Mooring, by its Helm chart"):
        demo_chart.install(cluster, built, settings)
        arguments = ("get", "deployments,clustermodelruntimes", "-n", demo_chart.NAMESPACE)
        timeline.shell(f"kubectl {' '.join(arguments)}", cluster.kubectl(*arguments))
    with timeline.chapter("A model store (S3), with two versions of a model"):
        _clear(timeline, cluster)
        store = start_store(cluster)
        uris = publish_examples(store)
        prepare_namespace(cluster, NAMESPACE, store)
        for uri in uris.values():
            timeline.say(uri)
        server = next(one for one in built if one.image.name == "onnx-server")
        client = Client.start(cluster, NAMESPACE, server.reference)
    return Story(timeline, cluster, client, uris), store


def _cluster_and_images(timeline: Timeline, name: str) -> tuple[Cluster, tuple[Built, ...]]:
    # Before anything runs beside it: two apt-get refuse to run at the same time.
    ensure_packages()
    with images.BackgroundBuild() as building:
        with timeline.chapter("A Kubernetes cluster on this machine"):
            if building.running:
                timeline.say(f"(the images are built meanwhile; log: {building.log})")
            cluster = Cluster.up(name)
            # What comes later is built now, while the images still are.
            for program in ("helm", "versitygw"):
                ensure(program)
            timeline.shell("kubectl get nodes", cluster.kubectl("get", "nodes"))
        with timeline.chapter("The images, from the Dockerfiles in this repository"):
            building.wait()
            built = images.load(cluster)
            rows = [(one.reference, f"{one.archive.stat().st_size / 1e6:.0f} MB") for one in built]
            timeline.table(("image", "size"), rows)
    return cluster, built


def _clear(timeline: Timeline, cluster: Cluster) -> None:
    found = cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    if found:
        timeline.say("removing what the last demo left")
        # Not the namespace: its controller takes three times as long as its content.
        of_ours = ("--namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
        cluster.kubectl("delete", "pod", CLIENT, *of_ours)
        cluster.kubectl("delete", "mdep", "--all", "--cascade=foreground", *of_ours)


def _first_model(story: Story) -> None:
    path = example_file("onnx", "modeldeployment.yaml")
    story.timeline.shell(f"cat {path.relative_to(path.parents[2])}", path.read_text())
    fraud = story.model("fraud")
    begin = time.monotonic()
    fraud.apply(read_manifests(path)[0])
    story.show("wait", "--for=condition=Ready", "mdep/fraud", "--timeout=120s")
    status = fraud.wait_ready()
    story.timeline.good(f"Ready {time.monotonic() - begin:.1f} s after it was applied:")
    story.timeline.quote(status["message"])
    story.timeline.say("The first pod fixed what the URI stands for; every later one must match:")
    story.timeline.quote(status["stable"]["modelDigest"])


def _ask(story: Story, version: str) -> None:
    maker = example()
    url = service_url("fraud", NAMESPACE)
    answer = story.client.infer(url, maker.request())
    given = answer["outputs"][0]["data"]
    wanted = expected(version, maker.PAYMENTS)
    story.timeline.say(f"POST {url}")
    rows = [
        (", ".join(f"{value:g}" for value in payment), f"{got:.6f}", f"{want:.6f}")
        for payment, got, want in zip(maker.PAYMENTS, given, wanted, strict=True)
    ]
    titles = (", ".join(maker.FEATURES), "fraud, by the server", f"{version}, by plain arithmetic")
    story.timeline.table(titles, rows)
    worst = max(abs(got - want) for got, want in zip(given, wanted, strict=True))
    if worst > _TOLERANCE:
        raise DevError(f"The server's answers are off by up to {worst:g}: that is a bug.")
    story.timeline.good(f"The same, within {worst:.1g}.")


def _second_model(story: Story) -> None:
    fraud = story.model("fraud")
    # Minutes in life, seconds here: nobody wants to watch an hour.
    steps = [{"weight": 20, "duration": "5s"}, {"weight": 50, "duration": "5s"}]
    with story.client.stream(service_url("fraud", NAMESPACE), example().request()) as stream:
        change_model(story, story.uris["v2"], rollout={"steps": steps})
        fraud.wait("its share of the traffic", has_traffic)
        story.plugin("get", "fraud")
        fraud.wait_serving(story.uris["v2"])
        status = fraud.wait_ready()
        story.show("get", "mdep", "fraud")
    story.timeline.quote(status["message"])
    _report(story, stream.result)
    _ask(story, "v2")


def change_model(story: Story, uri: str, **more: Any) -> None:
    """Let the model fraud be the one at ``uri``, as a person would, with ``more`` of its spec."""
    change = json.dumps({"spec": {"model": {"uri": uri}, **more}}, separators=(",", ":"))
    story.show("patch", "mdep", "fraud", "--type=merge", "-p", change)


def has_traffic(status: dict[str, Any]) -> bool:
    """Whether a candidate gets requests."""
    return bool(status.get("candidate", {}).get("weight"))


def _report(story: Story, result: StreamResult) -> None:
    if result.failed:
        shown = "\n".join(result.failures)
        raise DevError(f"{result.failed} of {result.sent} requests failed meanwhile:\n{shown}")
    split = ", ".join(f"{count} by {_version(answer)}" for answer, count in result.answers.items())
    story.timeline.good(
        f"{result.sent} requests in {result.seconds:.0f} s meanwhile, none failed: "
        f"answered {split}."
    )


def _version(answer: str) -> str:
    """Which model gave this answer (the outputs' data, as JSON) to the example's request."""
    given = json.loads(answer)[0]
    for version in example().WEIGHTS:
        wanted = expected(version, example().PAYMENTS)
        if all(abs(got - want) < _TOLERANCE for got, want in zip(given, wanted, strict=True)):
            return str(version)
    raise DevError(f"No version of the model answers {answer}: that is a bug.")


def _broken_models(story: Story) -> None:
    for name in _BROKEN:
        path = example_file("broken-model", f"{name}.yaml")
        story.model(name).apply(read_manifests(path)[0])
    for name, what in _BROKEN.items():
        status = story.model(name).wait("an explanation", _explained)
        story.timeline.say(f"{name}: {what}")
        story.timeline.quote(condition(status, "Ready")["message"])
    story.show("get", "mdep")


def _explained(status: dict[str, Any]) -> bool:
    ready = condition(status, "Ready")
    return ready.get("status") == "False" and ready.get("reason") in {"FetchFailed", "ServerFailed"}


def _bad_update(story: Story) -> None:
    fraud = story.model("fraud")
    with story.client.stream(service_url("fraud", NAMESPACE), example().request()) as stream:
        change_model(story, story.uris["corrupt"])
        status = fraud.wait("the candidate's last words", _candidate_failed)
        story.show("get", "mdep", "fraud")
    story.timeline.quote(condition(status, "Reconciling")["message"])
    _report(story, stream.result)
    story.timeline.say("Its old spec again, and the candidate is dropped:")
    change_model(story, story.uris["v2"])
    fraud.wait_ready()


def _candidate_failed(status: dict[str, Any]) -> bool:
    return "exit code" in condition(status, "Reconciling").get("message", "")


def farewell(timeline: Timeline, cluster: Cluster) -> None:
    """How long it took, and where to go from here."""
    timeline.say("")
    timeline.good(f"All of this took {timeline.elapsed:.0f} s.")
    timeline.say("The cluster stays. Look around:")
    timeline.shell(f"export KUBECONFIG={cluster.kubeconfig}", "")
    timeline.shell(f"kubectl explain {RESOURCE.partition('.')[0]}.spec --recursive", "")
    timeline.say("Remove it:")
    chosen = "" if cluster.name == "default" else f" CLUSTER={cluster.name}"
    timeline.shell(f"make cluster-down{chosen}", "")
