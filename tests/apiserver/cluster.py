"""What tests against a real API server need: requests as another user, an operator, and pods.

There is no kubelet and no Deployment controller: :class:`Pods` plays both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient

from mooring.adapters.kube import KubeClient, load_configuration
from mooring.core import kinds
from mooring.core.kinds import CHILD_KINDS, Kind, Ref
from mooring.engine.lease import Fence
from mooring.engine.queue import Key
from mooring.engine.resync import Resync
from mooring.process import Process
from mooring.settings import Settings

Json = dict[str, Any]

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
#: After so long a test gives up waiting; on a busy machine all takes several times as long.
SECONDS = 90.0
DIGEST = "sha256:" + "1" * 64

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_numbers = itertools.count(1)


class Refused(Exception):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


async def until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any],
    what: str = "",
    seconds: float = SECONDS,
    every: float = 0.03,
) -> Any:
    """Waits for a true value of ``condition`` and returns it; fails after ``seconds``."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what or condition}")
        await asyncio.sleep(every)


class Api:
    """The API server as a user sees it: every request by a field manager that is not ours."""

    def __init__(self, session: aiohttp.ClientSession, server: str, folder: Path) -> None:
        self.session = session
        self.server = server
        #: Of the control plane.
        self.folder = folder

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, kubeconfig: Path) -> AsyncIterator[Api]:
        configuration = await load_configuration(str(kubeconfig))
        client = ApiClient(configuration)
        context = client.rest_client.ssl_context
        await client.close()  # type: ignore[no-untyped-call]
        connector = aiohttp.TCPConnector(ssl=context, limit=0)  # each watch holds a connection
        async with aiohttp.ClientSession(connector=connector) as session:
            yield cls(session, configuration.host, kubeconfig.parent)

    async def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json",
        **query: str,
    ) -> Json:  # fmt: skip
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(answer.status, text)
            return dict(json.loads(text or "{}"))

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        try:
            return await self.request("GET", kind.path(namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None = None, selector: str = ""
    ) -> list[Json]:
        query = {"labelSelector": selector} if selector else {}
        return list((await self.request("GET", kind.path(namespace), **query))["items"])

    async def create(self, kind: Kind, namespace: str | None, body: Json) -> Json:
        full = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        return await self.request("POST", kind.path(namespace), full)

    async def apply(
        self, kind: Kind, namespace: str | None, body: Json, manager: str = "user"
    ) -> Json:
        full = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        name = body["metadata"]["name"]
        return await self.request(
            "PATCH", kind.path(namespace, name), full, _APPLY, fieldManager=manager, force="true"
        )

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, body: Json, subresource: str = ""
    ) -> Json:
        return await self.request("PATCH", kind.path(namespace, name, subresource), body, _MERGE)

    async def delete(self, kind: Kind, namespace: str | None, name: str, **options: Any) -> None:
        body = {"propagationPolicy": "Background", **options}
        with contextlib.suppress(Refused):
            await self.request("DELETE", kind.path(namespace, name), body)

    async def namespace(self, prefix: str = "t") -> str:
        """A fresh namespace, once it has its default ServiceAccount."""
        name = f"{prefix}-{next(_numbers)}"
        await self.create(NAMESPACE, None, {"metadata": {"name": name}})
        return name

    async def children(self, namespace: str, name: str | None = None) -> dict[Ref, Json]:
        """Every object that carries our label."""
        wanted = kinds.LABEL_DEPLOYMENT + (f"={name}" if name else "")
        found: dict[Ref, Json] = {}
        for kind in CHILD_KINDS:
            for obj in await self.list(kind, namespace, wanted):
                found[Ref(kind.name, obj["metadata"]["name"])] = {"kind": kind.name, **obj}
        return found

    async def versions(self, namespace: str) -> dict[str, str]:
        """uid and resourceVersion of every object of a namespace that the operator may write."""
        found = {}
        for kind in (*CHILD_KINDS, kinds.MODEL_DEPLOYMENT):
            for obj in await self.list(kind, namespace):
                meta = obj["metadata"]
                found[f"{kind.name}/{meta['name']}"] = f"{meta['uid']}@{meta['resourceVersion']}"
        return found

    async def resource(self, namespace: str, name: str) -> Json:
        found = await self.get(kinds.MODEL_DEPLOYMENT, namespace, name)
        assert found is not None
        return found

    async def condition(self, namespace: str, name: str, kind: str) -> Json:
        """The condition of this type, empty when there is none (yet)."""
        found = await self.get(kinds.MODEL_DEPLOYMENT, namespace, name) or {}
        for condition in (found.get("status") or {}).get("conditions") or ():
            if condition["type"] == kind:
                return dict(condition)
        return {}

    async def stalled(self, namespace: str, name: str) -> str:
        """Why it is stalled; empty when it is not."""
        found = await self.condition(namespace, name, "Stalled")
        return str(found["reason"]) if found.get("status") == "True" else ""

    async def ready(self, namespace: str, name: str) -> bool:
        return (await self.condition(namespace, name, "Ready")).get("status") == "True"


RUNTIME_SPEC: Json = {
    "formats": [{"name": "onnx", "versions": ["1"]}],
    "protocols": ["open-inference-v2"],
    "image": "example.com/onnx-server:{{ runtime.version }}",
    "version": "0.1.0",
    "args": ["--model-name", "{{ model.name }}", "--model-dir", "{{ model.path }}"],
    "ports": [{"name": "http", "containerPort": 8080}],
    "readinessProbe": {"httpGet": {"path": "/v2/models/{{ model.name }}/ready", "port": "http"}},
    "metrics": {"port": "http", "path": "/metrics"},
}

RICH_RUNTIME: Json = {
    **RUNTIME_SPEC,
    "ports": [
        {"name": "http", "containerPort": 8080, "appProtocol": "http"},
        {"name": "grpc", "containerPort": 9000, "appProtocol": "kubernetes.io/h2c"},
        {"name": "metrics", "containerPort": 8082, "service": False},
    ],
    "metrics": {"port": "metrics", "path": "/metrics"},
    "command": ["/usr/bin/server"],
    "env": [{"name": "EMPTY", "value": ""}, {"name": "OMP_NUM_THREADS", "value": "1"}],
    "resources": {"requests": {"cpu": "0.1", "memory": "128Mi"}},
    "config": [
        {"path": "/etc/server/config.properties", "content": "name={{ model.name }}\nx=1\n"},
        {"path": "/etc/server/models.json", "content": "{}"},
    ],
    "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 20},
    "startupProbe": {"exec": {"command": ["/bin/check"]}, "failureThreshold": 60},
    "security": {"runAsUser": 1000},
    "writablePaths": ["/var/cache/server", "/run/server"],
    "terminationGracePeriodSeconds": 30,
    "imagePullPolicy": "IfNotPresent",
}

#: Everything that the API server stores in another form, or fills up.
RICH_SPEC: Json = {
    "model": {
        "uri": "s3://models/fraud/v1",
        "format": {"name": "onnx", "version": "1"},
        "credentials": {"secretName": "store"},
        "name": "Fraud_v1",
    },
    "runtime": {
        "name": "onnx",
        "version": "0.1.1",
        "env": [
            {"name": "EMPTY_TOO", "value": ""},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "CONFIG", "valueFrom": {
                "configMapKeyRef": {"name": "c", "key": "k", "optional": True}}},
        ],
        "args": ["--threads", "2", ""],
        "resources": {
            "requests": {"cpu": "0.5", "memory": "1024Mi", "ephemeral-storage": "1G"},
            "limits": {"cpu": "2000m", "memory": "1.5Gi", "ephemeral-storage": "2000000000"},
        },
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [
            {"key": "gpu", "operator": "Exists"},
            {"key": "spot", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 30},
            {"operator": "Exists", "effect": "NoSchedule"},
        ],
        "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
        "podLabels": {"team": "risk", "cost": ""},
        "podAnnotations": {"sidecar.istio.io/inject": "false", "note": ""},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a"]}]}
                    ]
                }
            },
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 50, "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"team": "risk"}}}}
                ]
            },
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
             "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2,
             "labelSelector": {"matchLabels": {"team": "risk"}}},
            {"maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone",
             "whenUnsatisfiable": "ScheduleAnyway",
             "labelSelector": {"matchExpressions": [
                 {"key": "team", "operator": "Exists"}]}},
        ],
        "priorityClassName": "system-cluster-critical",
    },
    "autoscaling": {
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "AverageValue", "averageValue": "0.5"}}},
            {"type": "Pods", "pods": {
                "metric": {"name": "requests"},
                "target": {"type": "AverageValue", "averageValue": "1000m"}}},
        ],
    },
    "traffic": {"router": "replicas"},
    "rollout": {"progressDeadline": "90s", "revisionHistoryLimit": 3},
}  # fmt: skip


def simple_spec(uri: str = "s3://models/fraud/v1", **changes: Any) -> Json:
    """A small spec whose digest is declared, so that no pod must find it."""
    return {
        "model": {"uri": uri, "digest": DIGEST},
        "runtime": {"name": "onnx"},
        "traffic": {"router": "replicas"},
        "replicas": 2,
        **changes,
    }


async def install(api: Api, namespace: str, runtime: Json | None = None) -> None:
    """The onnx runtime, in a namespace of its own."""
    body = {"metadata": {"name": "onnx"}, "spec": runtime or RUNTIME_SPEC}
    await api.apply(kinds.MODEL_RUNTIME, namespace, body)


async def deploy(api: Api, namespace: str, name: str = "fraud", spec: Json | None = None) -> Json:
    """Applies a ModelDeployment."""
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": spec or simple_spec()}
    return await api.apply(kinds.MODEL_DEPLOYMENT, namespace, body)


def settings(*namespaces: str, **changes: Any) -> Settings:
    """Short times, any port."""
    return Settings(
        **{
            "namespaces": namespaces,
            "port": 0,
            "resync": timedelta(seconds=300),
            "drain": timedelta(seconds=0.2),
            "workers": 4,
            **changes,
        }
    )


@dataclass
class Operator:
    """An operator in this process, with metrics, store and queue at hand."""

    process: Process
    task: asyncio.Task[None]

    @classmethod
    @contextlib.asynccontextmanager
    async def run(
        cls, kubeconfig: Path, wanted: Settings, *, elect: bool = False
    ) -> AsyncIterator[Operator]:
        configuration = await load_configuration(str(kubeconfig))
        process = Process(wanted, configuration, elect, discovery_seconds=0.5)
        operator = cls(process, asyncio.create_task(process.run()))
        try:
            await until(lambda: process.seeded.is_set() or operator.task.done(), "seeded")
            yield operator
        finally:
            process.stop.set()
            done, _ = await asyncio.wait({operator.task}, timeout=SECONDS)
            assert done, f"the process has not ended {SECONDS:.0f} s after it was told to"
            if not operator.task.cancelled():  # as a fault that kills it does
                operator.task.result()
            # kopf leaves the connections of watches that are cancelled to the garbage collector;
            # what it says of them must not be held against the test that runs by then.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    def requests(self, *verbs: str) -> float:
        """mooring_api_requests_total over these verbs; Events and Leases are not counted."""
        return sum(
            sample.value
            for metric in self.process.metrics.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
            and sample.labels["verb"] in verbs
            and sample.labels["kind"] not in ("Event", "Lease")
        )

    @property
    def writes(self) -> float:
        return self.requests("apply", "create", "patch", "patch_status", "delete")

    def metric(self, name: str, **labels: str) -> float:
        return self.process.metrics.registry.get_sample_value(name, labels) or 0.0

    @property
    def idle(self) -> bool:
        return self.process.queue.depth == 0 and self.process.queue.active == 0

    async def round(self, *keys: Key) -> None:
        """Has these keys (all, when none are given) looked at once, and waits for it."""
        before = self.metric("mooring_reconcile_duration_seconds_count")
        wanted = keys or tuple(self.process.store.all_keys())
        for key in wanted:
            self.process.queue.add(key)
        await until(
            lambda: (
                self.idle
                and self.metric("mooring_reconcile_duration_seconds_count") >= before + len(wanted)
            ),
            "a round",
        )

    async def resync(self) -> int:
        """Compares everything once; returns how much the watches had missed."""
        process = self.process
        client = KubeClient(process.configuration, Fence())
        comparison = Resync(
            client,
            process.store,
            process.queue,
            process.metrics,
            process.settings.namespaces,
            300.0,
        )
        try:
            return await comparison.compare()
        finally:
            await client.close()

    async def settled(self) -> None:
        """Waits until rounds write nothing, and all that was written has been seen."""

        async def quiet() -> bool:
            before = self.writes
            await self.round()
            return self.idle and self.writes == before

        for _ in range(2):
            await until(quiet, "settled")
