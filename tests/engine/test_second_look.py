"""Pods start and go only by what the API server says at that moment, whatever the watches told."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from tests.engine.test_reconciler import FRAUD, Setting

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.kinds import KIND_BY_NAME, Kind, Ref
from mooring.engine.second_look import Conflict

Json = dict[str, Any]


@pytest.fixture
def setting() -> Setting:
    return Setting()


def change(setting: Setting, ref: Ref, *, seen: bool = True, **parts: Json) -> None:
    """Somebody else changes an object; ``seen``: and its watch tells of it."""
    live = copy.deepcopy(setting.server.objects[ref])
    for part, changed in parts.items():
        live[part] = {**live.get(part, {}), **changed}
    live["metadata"]["resourceVersion"] = str(next(setting.server.versions))
    setting.server.objects[ref] = live
    if seen:
        setting.store.put(KIND_BY_NAME[ref.kind], copy.deepcopy(live))


def deployments(setting: Setting) -> list[Ref]:
    return sorted(ref for ref in setting.server.objects if ref.kind == "Deployment")


def size(setting: Setting, ref: Ref) -> int:
    return int(setting.server.objects[ref]["spec"]["replicas"])


def starts(setting: Setting, ref: Ref, count: int, *, seen: bool = True) -> None:
    """The pods of a Deployment are counted."""
    generation = setting.server.objects[ref]["metadata"].get("generation", 0)
    counted = {"replicas": count, "readyReplicas": count, "availableReplicas": count}
    change(setting, ref, seen=seen, status={"observedGeneration": generation, **counted})


def asks(setting: Setting, generation: int, *, seen: bool = True, **spec: Any) -> None:
    """The user applies a changed spec."""
    ref = Ref("ModelDeployment", "fraud")
    meta = {**setting.server.objects[ref]["metadata"], "generation": generation}
    change(setting, ref, seen=seen, metadata=meta, spec=spec)


async def serving(setting: Setting) -> Ref:
    """One revision with two pods."""
    await setting.settle()
    (stable,) = deployments(setting)
    starts(setting, stable, 2)
    await setting.settle()
    return stable


async def promoted(setting: Setting) -> tuple[Ref, Ref]:
    """A second revision has taken over, and the pods of the first one are to go now."""
    stable = await serving(setting)
    asks(setting, 2, model={"uri": "s3://models/fraud/v2", "digest": "sha256:" + "2" * 64})
    await setting.settle()
    (candidate,) = set(deployments(setting)) - {stable}
    starts(setting, candidate, 2)
    await setting.settle()
    assert size(setting, stable) == 2, "requests may still be under way"
    setting.now += timedelta(minutes=1)
    return stable, candidate


async def test_pods_that_were_added_amid_a_round_are_not_taken_away(setting: Setting) -> None:
    """Two operators did that to each other: the one added a pod, the other still wanted one."""
    stable = await serving(setting)
    asks(setting, 2, replicas=3)
    write = setting.server.patch_status

    async def scaled_meanwhile(kind: Kind, namespace: str, name: str, body: Json) -> Json:
        change(setting, stable, spec={"replicas": 5})  # by an autoscaler, for instance
        return await write(kind, namespace, name, body)

    setting.server.patch_status = scaled_meanwhile  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 5


async def test_nor_are_those_that_no_watch_has_told_of(setting: Setting) -> None:
    stable = await serving(setting)
    change(setting, stable, seen=False, spec={"replicas": 5})
    asks(setting, 2, replicas=3)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 5
    await setting.settle()
    assert size(setting, stable) == 3, "but what is asked for is done once it is known"


async def test_stable_keeps_its_pods_when_the_candidates_have_failed_unseen(
    setting: Setting,
) -> None:
    """The candidate's watch says nothing any more, and its pods have failed since."""
    stable, candidate = await promoted(setting)
    starts(setting, candidate, 0, seen=False)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 2


async def test_stable_keeps_its_pods_when_the_spec_asks_for_them_again_unseen(
    setting: Setting,
) -> None:
    """Where status has to be written first, that is refused; here it has been."""
    stable = await serving(setting)
    asks(setting, 2, replicas=1)
    setting.server.errors["scale"] = ApiError(500, "InternalError", "no")
    with pytest.raises(ApiError):
        await setting.reconciler.reconcile(FRAUD)
    setting.server.errors.clear()
    asks(setting, 3, seen=False, replicas=2)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 2


async def test_pods_go_only_by_the_record_of_the_moment(setting: Setting) -> None:
    """Somebody has taken the promotion back, and only the watch of records has not said so."""
    stable, candidate = await promoted(setting)
    change(setting, Ref("ControllerRevision", candidate.name), seen=False)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 2


async def test_pods_that_nothing_keeps_go(setting: Setting) -> None:
    stable, candidate = await promoted(setting)
    await setting.settle()
    assert deployments(setting) == [candidate]
    assert stable not in setting.server.objects


async def test_no_pods_are_started_for_a_revision_that_was_rejected_unseen(
    setting: Setting,
) -> None:
    stable = await serving(setting)
    gone = setting.server.objects.pop(stable)
    setting.store.remove(kinds.DEPLOYMENT, gone, gone=True)
    change(setting, Ref("ControllerRevision", stable.name), seen=False)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert deployments(setting) == []
    await setting.settle()
    assert deployments(setting) == [stable], "what the record says now is done"


async def test_a_digest_that_others_have_pinned_is_read_before_pods_wait_for_it(
    setting: Setting,
) -> None:
    """Without one a revision begins with one pod; a leader that has not heard of it must not take
    the others away again.
    """
    stable = await serving(setting)
    change(setting, Ref("ConfigMap", stable.name), seen=False, data={"digest": "x"})
    asks(setting, 2, replicas=1)
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert size(setting, stable) == 2


async def test_a_deployment_is_deleted_only_as_it_was_looked_at(setting: Setting) -> None:
    stable, _ = await promoted(setting)
    fetch = setting.server.get

    async def changes_after(kind: Kind, namespace: str, name: str) -> Json | None:
        found = await fetch(kind, namespace, name)
        if Ref(kind.name, name) == stable:
            change(setting, stable, seen=False)
        return found

    setting.server.get = changes_after  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await setting.reconciler.reconcile(FRAUD)
    assert stable in deployments(setting)


async def test_a_round_in_which_no_pods_go_reads_nothing_again(setting: Setting) -> None:
    stable = await serving(setting)
    asks(setting, 2, replicas=4)
    before = len(setting.server.calls)
    await setting.settle()
    assert size(setting, stable) == 4
    assert [call for call in setting.server.calls[before:] if call.startswith("get")] == []
