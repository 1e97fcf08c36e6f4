"""A slice of the schema campaign against a real API server: change a field, and change it back."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as searching
from tests.apiserver.cluster import Api, Json, Operator, Refused, deploy, settings, until
from tests.apiserver.pods import Pods
from tests.core.schema_values import changes, spec_schema
from tests.faults.history import History, end_state
from tests.faults.oracles import judge

from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

_SEED = 20261121
_CHANGES = 12
SPEC: Json = {
    "model": {"uri": "s3://models/fraud/v1", "digest": "sha256:" + "1" * 64},
    "runtime": {"name": "onnx", "env": [{"name": "A", "value": "1"}],
                "resources": {"requests": {"cpu": "500m"}}},
    "traffic": {"router": "replicas"},
    "replicas": 2,
    "rollout": {"steps": [{"weight": 20}], "progressDeadline": "10m", "revisionHistoryLimit": 10},
}  # fmt: skip


def _drawn(count: int) -> list[Json]:
    """So many specs with one field changed; the same ones in each run."""
    found: list[Json] = []

    @searching(
        max_examples=count, database=None, derandomize=True, phases=[Phase.generate],
        deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changes(spec_schema(), SPEC))
    def draw(change: tuple[tuple[str, ...], Json]) -> None:
        if change[1] != SPEC:
            found.append(change[1])

    draw()
    random.Random(_SEED).shuffle(found)
    return found


async def test_fields_changed_and_changed_back_leave_the_children_as_they_were(
    cluster: ControlPlane, api: Api, namespace: str
) -> None:
    """What the API server refuses is no change; a dozen that it takes are tried."""
    history = History()
    taken = 0
    async with (
        history.watch(api, namespace),
        Operator.run(cluster.kubeconfig, settings(namespace)) as operator,
        Pods(api, namespace),
    ):
        await deploy(api, namespace, spec=SPEC)
        await until(lambda: api.ready(namespace, "fraud"), "Ready")
        await operator.settled()
        before = _without_records(await end_state(api, namespace))
        for new in _drawn(400):
            if not await _taken(api, namespace, new):
                continue
            taken += 1
            for _ in range(3):
                await operator.round()
            if await api.stalled(namespace, "fraud") != "WriteRefused":  # that is tried again
                await operator.settled()
            await deploy(api, namespace, spec=SPEC)

            async def back() -> bool:
                return _without_records(await end_state(api, namespace)) == before

            try:
                await until(back, f"as it was before {new}")
            except AssertionError:
                assert _without_records(await end_state(api, namespace)) == before, new
                raise
            await operator.settled()
            if taken == _CHANGES:
                break
    assert taken == _CHANGES
    assert judge(history.in_order()) == []


async def _taken(api: Api, namespace: str, new: Json) -> bool:
    try:
        await deploy(api, namespace, spec=new)
    except Refused as error:
        if error.status in (400, 422, 500):  # 500: the same name twice in a list of named things
            return False
        raise
    return True


def _without_records(state: Json) -> Json:
    """Records of what has been tried stay."""
    return {key: value for key, value in state.items() if "ControllerRevision" not in key}
