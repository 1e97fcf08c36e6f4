"""A Gateway's controller that routes nothing: it only says what one would say of HTTPRoutes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Self

from tests.apiserver.cluster import Api, Json, Refused
from tests.apiserver.pods import ended

from mooring.core import kinds

CONTROLLER = "example.com/fake-gateway"


@dataclass
class FakeGateway:
    """Answers for the Gateway called ``name`` in one namespace, and for no other.

    ``refuses`` is what it says against every route; ``seen`` holds the weights that it has
    accepted, by the name of the Service, whenever they changed.
    """

    api: Api
    namespace: str
    name: str = "public"
    refuses: str = ""
    seen: list[dict[str, int]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._task)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(Refused):  # not installed yet, or changed meanwhile
                for route in await self.api.list(kinds.HTTP_ROUTE, self.namespace):
                    await self._answer(route)
            await asyncio.sleep(0.1)

    async def _answer(self, route: Json) -> None:
        meta = route["metadata"]
        wanted = [
            {
                "parentRef": parent,
                "controllerName": CONTROLLER,
                "conditions": self._conditions(meta["generation"]),
            }
            for parent in route["spec"]["parentRefs"]
            if parent["name"] == self.name
        ]
        if wanted == (route.get("status") or {}).get("parents", []):
            return
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]},
                "status": {"parents": wanted}}  # fmt: skip
        await self.api.patch(kinds.HTTP_ROUTE, self.namespace, meta["name"], body, "status")
        rule = route["spec"]["rules"][-1]
        weights = {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        if not self.refuses and (not self.seen or self.seen[-1] != weights):
            self.seen.append(weights)

    def _conditions(self, generation: int) -> list[Json]:
        accepted = "False" if self.refuses else "True"
        reasons = {"Accepted": "NotAllowedByListeners" if self.refuses else "Accepted"}
        return [
            {
                "type": kind,
                "status": accepted if kind == "Accepted" else "True",
                "reason": reasons.get(kind, kind),
                "message": self.refuses if kind == "Accepted" else "",
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
