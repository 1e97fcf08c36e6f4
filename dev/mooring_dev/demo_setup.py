"""What demo and story stand on: a cluster with Mooring and Prometheus, a model store, a client.

What nobody has to watch is done beside what is shown: programs and images are built while the
cluster starts, and while the chart is installed Prometheus starts and the images that only models
need are still being imported.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from mooring_dev import demo_chart, images, images_background, prometheus
from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.demo_client import NAME as CLIENT
from mooring_dev.demo_client import Client
from mooring_dev.demo_model import RESOURCE, Model
from mooring_dev.demo_store import prepare_namespace, publish_examples, start_store
from mooring_dev.demo_timeline import Timeline
from mooring_dev.images_catalog import USUAL
from mooring_dev.s3 import S3Server

NAMESPACE = "demo"
#: How often the operator looks, and Prometheus scrapes; minutes in the examples are seconds here.
INTERVAL = "2s"
_SETTINGS = (
    f"config.prometheus.url={prometheus.IN_CLUSTER_URL}",
    f"config.prometheus.interval={INTERVAL}",
)
#: The one image that the chart waits for.
_FIRST = "operator"


@dataclass(frozen=True)
class Story:
    """What the chapters share, once the cluster is there."""

    timeline: Timeline
    cluster: Cluster
    client: Client
    store: S3Server
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


def set_up(timeline: Timeline, name: str) -> Story:
    """A cluster with Mooring and Prometheus, a store with the examples' models, and a client."""
    with ExitStack() as meanwhile:
        with images_background.building() as building:
            with timeline.chapter("A Kubernetes cluster on this machine"):
                if building.running:
                    timeline.say(f"(the images are built meanwhile; log: {building.log})")
                cluster = Cluster.up(name)
                # What comes later is built now, while the images still are.
                for program in ("helm", "versitygw", "prometheus"):
                    ensure(program)
                timeline.shell("kubectl get nodes", cluster.kubectl("get", "nodes"))
            with timeline.chapter("The images, from the Dockerfiles in this repository"):
                prometheus.begin(cluster, interval=INTERVAL)
                building.wait()
                built = images.build()
                others = [one for one in USUAL if one != _FIRST]
                loading = meanwhile.enter_context(images_background.loading(cluster.name, others))
                images.load(cluster, [_FIRST])
                rows = [
                    (one.reference, f"{one.archive.stat().st_size / 1e6:.0f} MB") for one in built
                ]
                timeline.table(("image", "size"), rows)
                timeline.say("(what models need is still being imported)")
        with timeline.chapter("Mooring, by its Helm chart, and a Prometheus for the evidence"):
            demo_chart.install(cluster, built, _SETTINGS)
            arguments = ("get", "deployments,clustermodelruntimes", "-n", demo_chart.NAMESPACE)
            timeline.shell(f"kubectl {' '.join(arguments)}", cluster.kubectl(*arguments))
        with timeline.chapter("A model store (S3), with versions of a model"):
            _clear(timeline, cluster)
            store = start_store(cluster)
            uris = publish_examples(store)
            prepare_namespace(cluster, NAMESPACE, store)
            for uri in uris.values():
                timeline.say(uri)
            loading.wait()
            server = next(one for one in built if one.image.name == "onnx-server")
            client = Client.start(cluster, NAMESPACE, server.reference)
            prometheus.wait(cluster)
    return Story(timeline, cluster, client, store, uris)


def _clear(timeline: Timeline, cluster: Cluster) -> None:
    found = cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    if found:
        timeline.say("removing what the last demo left")
        # Not the namespace: its controller takes three times as long as its content.
        of_ours = ("--namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
        cluster.kubectl("delete", "pod", CLIENT, *of_ours)
        cluster.kubectl("delete", "mdep", "--all", "--cascade=foreground", *of_ours)


def farewell(told: Story) -> None:
    """How long it took, and where to go from here."""
    timeline, cluster = told.timeline, told.cluster
    timeline.say("")
    timeline.good(f"All of this took {timeline.elapsed:.0f} s.")
    timeline.say("The cluster stays. Look around:")
    timeline.shell(f"export KUBECONFIG={cluster.kubeconfig}", "")
    timeline.shell(f"kubectl explain {RESOURCE.partition('.')[0]}.spec --recursive", "")
    timeline.say("Remove it:")
    chosen = "" if cluster.name == "default" else f" CLUSTER={cluster.name}"
    timeline.shell(f"make cluster-down{chosen}", "")
