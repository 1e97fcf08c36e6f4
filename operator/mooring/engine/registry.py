"""Watching what names in the model registry stand for.

One round of questions every few minutes or seconds for all ModelDeployments together, each name
once, by the leader alone. A key is woken when the answer to its name has changed, and not before.
What was answered is kept in memory; what follows from it stands in records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mooring.adapters.mlflow import UNSET
from mooring.core.registry import SCHEME, UNAVAILABLE, Answer, NotRegistered
from mooring.engine.queue import Key, KeyedQueue

log = logging.getLogger(__name__)

_AT_ONCE = 4


class Registry(Protocol):
    """What follows names; :class:`mooring.adapters.mlflow.MlflowRegistry` does."""

    async def resolve(self, uri: str) -> Answer: ...


@dataclass(slots=True)
class RegistryWatch:
    """``registry`` is None where the administrator has named none; ``interval`` is in seconds."""

    registry: Registry | None
    queue: KeyedQueue
    interval: float
    _wanted: dict[Key, str] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)
    _new: asyncio.Event = field(default_factory=asyncio.Event)

    def look_up(self, key: Key, resource: Mapping[str, Any]) -> Answer | None:
        """What is known of the name in spec.model.uri; asks for it from now on.

        None where it was not answered yet, and for a URI that needs no registry.
        """
        uri = _name_of(resource)
        if uri is None:
            self.forget(key)
            return None
        if self.registry is None:
            return UNSET
        if self._wanted.get(key) != uri:
            self._wanted[key] = uri
            if uri not in self._answers:
                self._new.set()
        return self._answers.get(uri)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone, or names no model in the registry any more."""
        uri = self._wanted.pop(key, None)
        if uri is not None and uri not in self._wanted.values():
            self._answers.pop(uri, None)

    async def run(self) -> None:
        """Asks for ever; new names at once, all of them every interval."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self.interval
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._new.wait()
            except TimeoutError:
                due = loop.time() + self.interval
                await self._ask(set(self._wanted.values()))
                continue
            self._new.clear()
            await self._ask(set(self._wanted.values()) - self._answers.keys())

    async def _ask(self, uris: set[str]) -> None:
        """Who cannot be reached for one name cannot for the others: they are not asked for."""
        slots = asyncio.Semaphore(_AT_ONCE)
        away: list[NotRegistered] = []

        async def one(uri: str) -> None:
            async with slots:
                answer = away[0] if away else await self._resolved(uri)
            if isinstance(answer, NotRegistered) and answer.reason == UNAVAILABLE:
                away.append(answer)
            self._take(uri, answer)

        await asyncio.gather(*(one(uri) for uri in sorted(uris)))

    async def _resolved(self, uri: str) -> Answer:
        assert self.registry is not None, "names are wanted only where there is a registry"
        try:
            return await self.registry.resolve(uri)
        except Exception as error:  # a defect of ours must not end the process
            log.exception("asking the model registry for %s", uri)
            return NotRegistered(UNAVAILABLE, f"a defect of the operator: {error}", lasting=False)

    def _take(self, uri: str, answer: Answer) -> None:
        keys = [key for key, wanted in self._wanted.items() if wanted == uri]
        if not keys:
            return
        if self._answers.get(uri) != answer:
            self._answers[uri] = answer
            for key in keys:
                self.queue.add(key)


def _name_of(resource: Mapping[str, Any]) -> str | None:
    """The URI of a raw ModelDeployment, if it names a model in the registry."""
    spec = resource.get("spec")
    model = spec.get("model") if isinstance(spec, Mapping) else None
    uri = model.get("uri") if isinstance(model, Mapping) else None
    return uri if isinstance(uri, str) and uri.startswith(SCHEME) else None
