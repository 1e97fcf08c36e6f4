"""Discovery: a kind that not every cluster has is used while it is known, and no longer."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.objects import child, model
from tests.engine.test_reconciler import Setting as Reconciling

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.kinds import HTTP_ROUTE, Kind
from mooring.engine.discovery import Discovery
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.store import Store

FRAUD = Key("shop", "fraud")


class Server:
    def __init__(self) -> None:
        self.known = False
        self.error: ApiError | None = None

    async def serves(self, kind: Kind) -> bool:
        if self.error is not None:
            raise self.error
        return self.known


class Setting:
    def __init__(self) -> None:
        self.server, self.store, self.queue = Server(), Store(), KeyedQueue()
        self.taken: list[str] = []
        self.forbidden = False
        self.store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 1))
        self.discovery = Discovery(
            self.server,  # type: ignore[arg-type]
            self.store,
            self.queue,
            30.0,
            self.take_in,
        )

    async def take_in(self, kind: Kind) -> None:
        if self.forbidden:
            raise ApiError(403, "Forbidden", "httproutes is forbidden")
        self.taken.append(kind.name)

    @property
    def queued(self) -> bool:
        return self.queue.depth > 0


@pytest.fixture
def reconciling() -> Reconciling:
    return Reconciling()


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_what_the_cluster_does_not_know_is_unserved(setting: Setting) -> None:
    await setting.discovery.look()
    assert setting.discovery.unserved() == {"HTTPRoute"}
    assert setting.discovery.known == ()
    assert not setting.discovery.changed.is_set()
    assert not setting.queued


async def test_a_kind_that_comes_is_listed_told_and_everything_looked_at(setting: Setting) -> None:
    setting.server.known = True
    await setting.discovery.look()
    assert setting.taken == ["HTTPRoute"]
    assert setting.discovery.known == (HTTP_ROUTE,)
    assert setting.discovery.unserved() == frozenset()
    assert setting.discovery.changed.is_set()
    assert await setting.queue.get() == FRAUD
    setting.discovery.changed.clear()
    await setting.discovery.look()
    assert setting.taken == ["HTTPRoute"], "once"
    assert not setting.discovery.changed.is_set()


async def test_a_kind_that_goes_takes_its_objects_along(setting: Setting) -> None:
    setting.server.known = True
    await setting.discovery.look()
    setting.store.put(HTTP_ROUTE, child(HTTP_ROUTE, "fraud", 2))
    assert setting.store.count(HTTP_ROUTE) == 1
    setting.server.known = False
    await setting.discovery.look()
    assert setting.store.count(HTTP_ROUTE) == 0
    assert setting.discovery.unserved() == {"HTTPRoute"}


async def test_a_kind_that_may_not_be_listed_counts_as_unknown(setting: Setting) -> None:
    setting.server.known = setting.forbidden = True
    await setting.discovery.look()
    assert setting.discovery.unserved() == {"HTTPRoute"}
    setting.forbidden = False
    await setting.discovery.look()
    assert setting.discovery.unserved() == frozenset()


async def test_what_cannot_be_looked_up_stays_as_it_was(setting: Setting) -> None:
    setting.server.known = True
    await setting.discovery.look()
    setting.server.error = ApiError(0, "Unreachable", "no answer")
    with pytest.raises(ApiError):
        await setting.discovery.look()
    assert setting.discovery.known == (HTTP_ROUTE,)


def test_a_reconciler_that_nobody_tells_takes_every_kind_for_known() -> None:
    from mooring.engine.reconciler import Reconciler

    unserved: Any = Reconciler.__dataclass_fields__["unserved"].default
    assert unserved() == frozenset()


@pytest.mark.parametrize(
    "answer",
    [
        ApiError(404, "NotFound", "the server could not find the requested resource"),
        ApiError(
            500, "", "failed to create typed patch object: .spec: field not declared in schema"
        ),
    ],
)
async def test_a_definition_of_others_that_is_gone_or_too_old_is_told_and_not_tried_for_ever(
    reconciling: Reconciling, answer: ApiError
) -> None:
    resource = reconciling.store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud")
    assert resource is not None
    resource["spec"]["traffic"] = {"router": "gateway", "gateway": {"parentRefs": [{"name": "a"}]}}
    reconciling.server.errors["apply HTTPRoute"] = answer
    await reconciling.reconciler.reconcile(FRAUD)
    assert reconciling.child("Deployment")
    await reconciling.reconciler.reconcile(FRAUD)
    assert reconciling.stalled() == "WriteRefused"
