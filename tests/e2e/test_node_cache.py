"""The cache of models on each node: the store is asked once, whoever may not read is given nothing,
and without it everything goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.e2e.metered import MeteredLine

from mooring_dev.binaries import ensure
from mooring_dev.cluster import Cluster
from mooring_dev.demo_chart import CHART, NAMESPACE, RELEASE
from mooring_dev.demo_model import Model, read_manifests
from mooring_dev.demo_store import BUCKET, SECRET, example, example_file
from mooring_dev.health import wait_until
from mooring_dev.s3 import S3Server

Named = Callable[[str], Model]

CACHE = "app.kubernetes.io/name=mooring-node-cache"
RESTRICTED = "pod-security.kubernetes.io/enforce"
SIZE = 24 << 20
#: Listings of a handful of pods, each a few hundred bytes.
LISTINGS = 64 << 10
#: Replaces a byte in the middle of each file that the cache keeps.
ROT = (
    "import os, pathlib\n"
    "for path in pathlib.Path('/var/cache/mooring/models').iterdir():\n"
    "    with path.open('r+b') as file:\n"
    "        file.seek(path.stat().st_size // 2)\n"
    "        file.write(b'?')\n"
)
#: Brings more files than the cache may keep, as a pod would that means no good.
JUNK = (
    "import socket\n"
    "body = bytes(1 << 20)\n"
    "for n in range(20):\n"
    "    end = socket.create_connection(('127.0.0.1', 8085))\n"
    "    end.sendall(f'PUT /v1/{n:064x}?size={64 << 20}&from=0 HTTP/1.1\\r\\n'\n"
    "        f'Content-Length: {64 << 20}\\r\\nExpect: 100-continue\\r\\n\\r\\n'.encode())\n"
    "    assert b' 100 ' in end.recv(4096)\n"
    "    for _ in range(64):\n"
    "        end.sendall(body)\n"
    "    assert b' 201 ' in end.recv(4096)\n"
    "    end.close()\n"
)


@dataclass(frozen=True)
class Published:
    """A model in the store, large enough for the cache."""

    uri: str
    digest: str


@dataclass(frozen=True)
class Cache:
    """The cache of the cluster's one node, and the line between pods and the store."""

    cluster: Cluster
    line: MeteredLine
    store: S3Server

    def publish(self, name: str) -> Published:
        """The example, padded with bytes of its own: a doc_string, which no server reads."""
        padding = hashlib.shake_256(name.encode()).hexdigest(SIZE // 2).encode()
        body = example().build("v1") + b"\x32" + _varint(len(padding)) + padding
        uri = self.store.put(BUCKET, f"large/{name}/model.onnx", body)
        return Published(uri, "sha256:" + hashlib.sha256(body).hexdigest())

    def pod(self) -> str:
        """The cache's one pod that is not on its way out."""
        found = self.cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", CACHE, "-o", "json")
        pods = [one["metadata"] for one in json.loads(found)["items"]]
        (name,) = (str(one["name"]) for one in pods if "deletionTimestamp" not in one)
        return name

    def metrics(self) -> dict[str, int]:
        """What the cache says of itself, by the short name."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod()}:8085/proxy/metrics"
        text = self.cluster.kubectl("get", "--raw", path)
        rows = re.findall(r"^mooring_node_cache_(\w+) (\d+)$", text, re.MULTILINE)
        return {name: int(value) for name, value in rows}

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """How far the metrics, and the bytes from the store as `crossed`, rise in the block."""
        grown: dict[str, int] = {}
        before = self.metrics() | {"crossed": self.line.crossed}
        yield grown
        after = self.metrics() | {"crossed": self.line.crossed}
        grown |= {name: value - before[name] for name, value in after.items()}

    def execute(self, program: str) -> str:
        """What Python prints beside the cache, in its container."""
        where = ("exec", "-n", NAMESPACE, self.pod(), "--")
        return self.cluster.kubectl(*where, "python", "-c", program)


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


@pytest.fixture(scope="module")
def cache(operator: Cluster, install: Callable[..., None], store: S3Server) -> Iterator[Cache]:
    """The chart with the cache, in a namespace that admits restricted pods only."""
    namespace = {"metadata": {"name": NAMESPACE, "labels": {RESTRICTED: "restricted"}}}
    manifest = {"apiVersion": "v1", "kind": "Namespace", **namespace}
    operator.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))
    install("nodeCache.enabled=true", "nodeCache.sizeGibibytes=1")
    port = urlsplit(store.endpoint).port
    assert port is not None
    line = MeteredLine(("127.0.0.1", port), operator.host_address)
    yield Cache(operator, line, store)
    line.close()
    operator.kubectl("label", "namespace", NAMESPACE, f"{RESTRICTED}-")
    if operator.kubectl("get", "daemonsets", "-n", NAMESPACE, "-o", "name"):
        install()


@pytest.fixture
def serve(cache: Cache, model: Named, namespace: str) -> Callable[..., Model]:
    """Applies a ModelDeployment of a published model, whose pods fetch over the line."""

    def keep(name: str, more: Mapping[str, str]) -> None:
        data = {**cache.store.environment, "AWS_ENDPOINT_URL": cache.line.endpoint, **more}
        secret = {"metadata": {"name": name, "namespace": namespace}, "stringData": data}
        manifest = json.dumps({"apiVersion": "v1", "kind": "Secret", **secret})
        cache.cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", input=manifest
        )

    keep(SECRET, {})

    def run(
        name: str,
        published: Published,
        *,
        replicas: int = 1,
        digest: str | None = None,
        secret: Mapping[str, str] | None = None,
    ) -> Model:
        deployment = model(name)
        manifest = read_manifests(example_file("onnx", "modeldeployment.yaml"))[0]
        wanted = manifest["spec"]
        wanted["replicas"] = replicas
        wanted["model"] |= {"uri": published.uri}
        if digest:
            wanted["model"]["digest"] = digest
        if secret is not None:
            keep(name, secret)
            wanted["model"]["credentials"] = {"secretName": name}
        deployment.apply(manifest)
        return deployment

    return run


def _fetchers(model: Model) -> list[dict[str, Any]]:
    """The state of each pod's fetcher."""
    selector = f"mooring.dev/deployment={model.name},mooring.dev/revision"
    pods = json.loads(model.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return [pod["status"]["initContainerStatuses"][0] for pod in pods]


def _pods(cluster: Cluster, namespace: str, selector: str = "") -> dict[str, tuple[str, int]]:
    """Each pod's uid and restarts, by name."""
    get = ("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    found = json.loads(cluster.kubectl(*get))["items"]
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(one["restartCount"] for one in pod["status"]["containerStatuses"]),
        )
        for pod in found
    }


def test_it_runs_where_restricted_pods_alone_are_admitted_and_tells_its_bound(cache: Cache) -> None:
    pod = json.loads(
        cache.cluster.kubectl("get", "pod", cache.pod(), "-n", NAMESPACE, "-o", "json")
    )
    assert all("emptyDir" in volume for volume in pod["spec"]["volumes"])
    assert cache.metrics()["max_bytes"] == 1 << 30


def test_pods_of_one_node_that_want_one_model_take_it_from_the_store_once(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large = cache.publish("once")
    with cache.counting() as grown:
        fraud = serve("fraud", large, replicas=3, digest=large.digest)
        twin = serve("twin", large, replicas=2, digest=large.digest)
        fraud.wait_ready()
        twin.wait_ready()
    assert SIZE < grown["crossed"] < SIZE + LISTINGS
    assert grown["served_bytes_total"] // SIZE == 4
    assert (grown["fills_total"], grown["hits_total"]) == (1, 4)


@pytest.mark.slow
def test_without_a_declared_digest_the_first_pod_brings_what_those_pinned_by_it_read(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large = cache.publish("pinned")
    with cache.counting() as grown:
        serve("fraud", large, replicas=3).wait_ready()
    assert SIZE < grown["crossed"] < SIZE + LISTINGS
    assert (grown["fills_total"], grown["hits_total"]) == (1, 2)


@pytest.mark.slow
def test_pods_of_other_credentials_are_given_nothing_by_the_cache(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large = cache.publish("others")
    serve("owner", large, digest=large.digest).wait_ready()

    with cache.counting() as grown:
        wrong = {"AWS_SECRET_ACCESS_KEY": "not the right one"}
        told = serve("refused", large, digest=large.digest, secret=wrong).wait_condition("Stalled")
    assert told["reason"] == "FetchFailed"
    assert "AWS_SECRET_ACCESS_KEY" in told["message"]
    assert grown["crossed"] < LISTINGS
    assert grown["hits_total"] == 0

    # Another Secret that the store takes as well: the bytes come from there.
    with cache.counting() as grown:
        other = {"MOORING_CACHE_KEY": "another tenant of one bucket"}
        serve("other", large, digest=large.digest, secret=other).wait_ready()
    assert SIZE < grown["crossed"] < SIZE + 2 * LISTINGS
    assert (grown["hits_total"], grown["fills_total"]) == (0, 1)


@pytest.mark.slow
def test_a_wrong_digest_is_refused_and_takes_nothing_from_those_who_have_the_right_one(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large = cache.publish("refused")
    serve("right", large, digest=large.digest).wait_ready()

    wrong = serve("wrong", large, digest="sha256:" + "0" * 64)
    told = wrong.wait_condition("Stalled")
    assert told["reason"] == "FetchFailed"
    assert large.digest in told["message"]
    wrong.delete()
    wrong.kubectl("wait", "--for=delete", "pods", "-l", "mooring.dev/deployment=wrong")

    with cache.counting() as grown:
        serve("again", large, digest=large.digest).wait_ready()
    assert grown["hits_total"] == 1
    assert grown["crossed"] < LISTINGS


@pytest.mark.slow
def test_what_the_cache_has_wrong_is_fetched_again_before_a_server_sees_it(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large = cache.publish("rotten")
    serve("brings", large, digest=large.digest).wait_ready()
    cache.execute(ROT)

    with cache.counting() as grown:
        serve("fraud", large, digest=large.digest).wait_ready()
    assert grown["hits_total"] == 1
    assert SIZE < grown["crossed"] < SIZE + LISTINGS
    assert grown["blobs"] == -1


@pytest.mark.slow
def test_a_cache_that_is_killed_in_the_middle_of_a_fetch_costs_no_pod_its_start(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    large, held = cache.publish("killed"), SIZE // 2
    doomed = cache.pod()
    before, crossed = cache.metrics(), cache.line.crossed
    with cache.line.held_after(held):
        fraud = serve("fraud", large, replicas=3, digest=large.digest)
        wait_until(
            "two pods have followed the one that brings",
            lambda: cache.metrics()["served_bytes_total"] - before["served_bytes_total"] > held,
            timeout=60,
            check=lambda: None,
        )
        now = ("--grace-period=0", "--force")
        cache.cluster.kubectl("delete", "pod", "-n", NAMESPACE, doomed, *now)
    fraud.wait_ready()

    assert [one["restartCount"] for one in _fetchers(fraud)] == [0, 0, 0]
    # The one that brought it lost nothing; the others went on from where they were.
    assert SIZE < cache.line.crossed - crossed < 3 * SIZE - held
    ready = ("rollout", "status", "daemonset/mooring-node-cache", "-n", NAMESPACE)
    cache.cluster.kubectl(*ready, "--timeout=60s")
    assert cache.pod() != doomed


@pytest.mark.slow
def test_it_keeps_no_more_than_its_bound_and_lives_within_its_memory(cache: Cache) -> None:
    with cache.counting() as grown:
        cache.execute(JUNK)
    metrics = cache.metrics()
    assert grown["fills_total"] == 20
    assert grown["evictions_total"] >= 4
    assert metrics["bytes"] <= metrics["max_bytes"]
    used = (
        "import os; print(sum(e.stat().st_size for e in os.scandir('/var/cache/mooring/models')))"
    )
    assert int(cache.execute(used)) <= metrics["max_bytes"]
    (restarts,) = _pods(cache.cluster, NAMESPACE, CACHE).values()
    assert restarts[1] == 0


@pytest.mark.slow
def test_policies_let_fetchers_reach_the_cache_and_the_cache_reach_nothing(
    cache: Cache, serve: Callable[..., Model]
) -> None:
    """The local cluster's network enforces no policy: whom they select is all that can be seen."""
    fraud = serve("fraud", cache.publish("policy"))
    fraud.wait_ready()

    def selected(selector: Mapping[str, Any], *where: str) -> set[str]:
        labels = ",".join(f"{key}={value}" for key, value in selector["matchLabels"].items())
        return set(cache.cluster.kubectl("get", *where, "-l", labels, "-o", "name").split())

    def policy(namespace: str, name: str) -> dict[str, Any]:
        get = ("get", "networkpolicy", name, "-n", namespace, "-o", "jsonpath={.spec}")
        spec: dict[str, Any] = json.loads(cache.cluster.kubectl(*get))
        return spec

    cached = {f"pod/{cache.pod()}"}
    theirs = policy(NAMESPACE, "mooring-node-cache")
    assert selected(theirs["podSelector"], "pods", "-n", NAMESPACE) == cached
    assert theirs["policyTypes"] == ["Ingress", "Egress"]
    assert not theirs.get("egress")
    (rule,) = theirs["ingress"]
    fetchers = rule["from"][0]
    assert fetchers["namespaceSelector"] == {}
    servers = fraud.kubectl("get", "pods", "-l", "mooring.dev/revision", "-o", "name").split()
    assert set(servers) <= selected(fetchers["podSelector"], "pods", "-n", fraud.namespace)

    ours = policy(fraud.namespace, "fraud")["egress"]
    (to,) = (out["to"][0] for out in ours if out.get("ports") == rule["ports"])
    assert selected(to["namespaceSelector"], "namespaces") == {f"namespace/{NAMESPACE}"}
    assert selected(to["podSelector"], "pods", "-n", NAMESPACE) == cached


def _helm(cluster: Cluster, home: Path, *arguments: str) -> None:
    done = subprocess.run(
        [ensure("helm"), *arguments, "--kubeconfig", cluster.kubeconfig, "-n", NAMESPACE],
        env={"HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_turned_off_it_is_gone_with_all_it_was_and_no_model_pod_restarts(
    cache: Cache, serve: Callable[..., Model], tmp_path: Path
) -> None:
    large = cache.publish("off")
    fraud = serve("fraud", large)
    fraud.wait_ready()
    before = _pods(cache.cluster, fraud.namespace)

    off = ("--reuse-values", "--set", "nodeCache.enabled=false", "--wait")
    _helm(cache.cluster, tmp_path, "upgrade", RELEASE, str(CHART), *off)

    gone = ("wait", "--for=delete", "pods", "-n", NAMESPACE, "-l", CACHE, "--timeout=60s")
    cache.cluster.kubectl(*gone)
    kinds = "daemonsets,pods,services,endpointslices,networkpolicies,configmaps,controllerrevisions"
    left = cache.cluster.kubectl("get", kinds, "-n", NAMESPACE, "-o", "name").split()
    assert [name for name in left if "node-cache" in name] == []
    assert _pods(cache.cluster, fraud.namespace) == before

    # A pod that was rendered with a cache fetches for itself.
    crossed = cache.line.crossed
    fraud.kubectl("scale", "mdep/fraud", "--replicas=2")
    fraud.wait("a second pod", lambda status: status["stable"]["replicas"]["ready"] == 2)
    assert cache.line.crossed - crossed > SIZE
    assert before.items() <= _pods(cache.cluster, fraud.namespace).items()
    wait_until(
        "the model's own policy opens nothing to it",
        lambda: "node-cache" not in fraud.kubectl("get", "networkpolicy", "fraud", "-o", "yaml"),
        timeout=30,
        check=lambda: None,
    )
