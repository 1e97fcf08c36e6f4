"""What others edit or delete comes back; what settles stays as it is."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.apiserver.cluster import (
    RICH_RUNTIME,
    RICH_SPEC,
    Api,
    Operator,
    Refused,
    deploy,
    install,
    settings,
    until,
)
from tests.apiserver.pods import Pods

from mooring.core import kinds
from mooring.core.fingerprint import covers
from mooring.core.kinds import CHILD_KINDS, KIND_BY_NAME, Ref
from mooring.core.quantity import canonical
from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

Json = dict[str, Any]


def _image(child: Json) -> None:
    child["spec"]["template"]["spec"]["containers"][0]["image"] = "example.com/hacked:1"


def _ports(child: Json) -> None:
    child["spec"]["ports"][0]["port"] = 9999


def _data(child: Json) -> None:
    child["data"] = dict.fromkeys(child.get("data") or {"config": ""}, "hacked")


def _labels(child: Json) -> None:
    child["metadata"]["labels"][kinds.LABEL_INSTANCE] = "hacked"


def _owners(child: Json) -> None:
    child["metadata"]["ownerReferences"] = []


EDITS: dict[str, Callable[[Json], None]] = {
    "ControllerRevision": lambda child: child["metadata"]["annotations"].clear(),
    "ConfigMap": _data,
    "ServiceAccount": _labels,
    "NetworkPolicy": lambda child: child["spec"].update(ingress=[]),
    "PodDisruptionBudget": lambda child: child["spec"].update(maxUnavailable=7),
    "Service": _ports,
    "Deployment": _image,
    "HorizontalPodAutoscaler": lambda child: child["spec"].update(maxReplicas=77),
}


#: When it was promoted is not known any more when its record has lost its annotations.
_TIMES = (kinds.ANNOTATION_PROMOTED_AT, kinds.ANNOTATION_FINGERPRINT)


def _wanted(child: Json) -> Json:
    """The part of a child that the operator declares: all but what the API server gives."""
    found = copy.deepcopy(child)
    found.pop("status", None)
    for given in ("resourceVersion", "uid", "generation", "managedFields", "creationTimestamp"):
        found["metadata"].pop(given, None)
    for given in _TIMES:
        (found["metadata"].get("annotations") or {}).pop(given, None)
    for given in ("clusterIP", "clusterIPs"):
        found.get("spec", {}).pop(given, None)
    return found


async def _edit(api: Api, namespace: str, ref: Ref, edit: Callable[[Json], None]) -> None:
    """Reads, changes and writes back, as a person with an editor does."""
    kind = KIND_BY_NAME[ref.kind]
    while True:
        edited = await _live(api, namespace, ref)
        edited["metadata"].setdefault("annotations", {})
        before = dict.fromkeys(edited["metadata"]["annotations"])
        edit(edited)
        try:
            if kind == kinds.CONTROLLER_REVISION:
                # Its data may not even be spelt otherwise, which a PUT of ours would do.
                kept = ("labels", "ownerReferences", "annotations", "resourceVersion")
                meta = {key: edited["metadata"][key] for key in kept}
                meta["annotations"] = {**before, **meta["annotations"]}
                await api.patch(kind, namespace, ref.name, {"metadata": meta})
            else:
                await api.request("PUT", kind.path(namespace, ref.name), edited)
        except Refused as error:
            if error.status == 409:  # mended since it was read
                continue
            raise
        return


async def _live(api: Api, namespace: str, ref: Ref) -> Json:
    found = await api.get(KIND_BY_NAME[ref.kind], namespace, ref.name)
    assert found is not None
    return found


async def _settled(api: Api, namespace: str, operator: Operator) -> dict[Ref, Json]:
    """A model with everything in its spec that makes a child."""
    await install(api, namespace, RICH_RUNTIME)
    await deploy(api, namespace, spec=RICH_SPEC)
    await until(lambda: api.ready(namespace, "fraud"), "Ready")
    await operator.settled()
    return await api.children(namespace)


def test_every_kind_of_child_has_an_edit_of_its_own() -> None:
    assert {kind.name for kind in CHILD_KINDS} <= set(EDITS)


async def test_an_edited_child_of_each_kind_is_taken_back(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        before = await _settled(api, namespace, operator)
        assert {ref.kind for ref in before} == set(EDITS)
        for ref in before:
            for edit in (EDITS[ref.kind], _labels, _owners):
                await _edit(api, namespace, ref, edit)

        async def edited() -> list[str]:
            now = await api.children(namespace)
            return [
                str(ref)
                for ref, child in before.items()
                if not covers(now.get(ref), _wanted(child))
            ]

        async def mended() -> bool:
            return not await edited()

        with contextlib.suppress(AssertionError):
            await until(mended)
        assert await edited() == []
        await operator.settled()
        assert await edited() == []
        assert await api.ready(namespace, "fraud")


async def test_a_deleted_child_of_each_kind_comes_back(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        before = await _settled(api, namespace, operator)
        for ref, child in before.items():

            async def replaced(ref: Ref = ref, uid: str = child["metadata"]["uid"]) -> bool:
                now = await api.get(KIND_BY_NAME[ref.kind], namespace, ref.name)
                return now is not None and now["metadata"]["uid"] != uid

            await api.delete(KIND_BY_NAME[ref.kind], namespace, ref.name)
            await until(replaced, f"a new {ref}")
        await until(lambda: api.ready(namespace, "fraud"), "Ready again")
        await operator.settled()
        assert set(await api.children(namespace)) == set(before)


async def test_a_rich_spec_settles_and_then_three_resyncs_write_nothing(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """Also by an operator that was started anew, and remembers nothing of its applies."""
    async with Pods(api, namespace):
        async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
            children = await _settled(api, namespace, operator)
        requests = next(
            container["resources"]["requests"]
            for ref, child in children.items()
            if ref.kind == "Deployment"
            for container in child["spec"]["template"]["spec"]["containers"]
        )
        assert requests["memory"] == canonical("1024Mi") != "1024Mi"
        versions = await api.versions(namespace)
        async with Operator.run(cluster.kubeconfig, settings(namespace)) as operator:
            for _ in range(3):
                assert await operator.resync() == 0
                await operator.round()
            assert operator.writes == 0
        assert await api.versions(namespace) == versions


async def test_a_record_whose_data_somebody_wants_to_change_stays_as_it_is(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """The API server itself refuses it, so a revision cannot become another one."""
    async with (
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        children = await _settled(api, namespace, operator)
        record = next(ref for ref in children if ref.kind == "ControllerRevision")
        with pytest.raises(Refused) as refused:
            await api.patch(
                kinds.CONTROLLER_REVISION, namespace, record.name, {"data": {"inputs": {"a": 1}}}
            )
        assert refused.value.status == 422
