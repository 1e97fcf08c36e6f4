"""Over-dispersion: asked once when a rollout comes under judgement, apart from the ticks.

The question goes over twelve hours, so it may take longer than the others, and nobody but the
rollouts that are new waits for it. Where it tells nothing yet (nothing failed, or stable was not
halved), it is asked again now and then, until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_halves import read_halves
from mooring.core.answers import NoAnswer
from mooring.core.examination import Examination
from mooring.core.halves import Halved, History, edges_of
from mooring.core.router_counters import ScrapeLabels
from mooring.engine.queue import Key

log = logging.getLogger(__name__)

_AGAIN: Final = timedelta(minutes=10)
#: A tick waits so long for the answers to new questions (seconds).
_PATIENCE: Final = 2.0


@dataclass(slots=True)
class Calibration:
    """Histories by ModelDeployment. Lives on the event loop."""

    prometheus: Prometheus
    labels: ScrapeLabels
    _asked: dict[tuple[Key, str], datetime] = field(default_factory=dict)
    _found: dict[tuple[Key, str], History] = field(default_factory=dict)
    _pending: set[tuple[Key, str]] = field(default_factory=set)
    _task: asyncio.Task[None] | None = None

    async def histories(
        self, open_: Mapping[Key, Examination], now: datetime
    ) -> tuple[Mapping[Key, History], frozenset[Key]]:
        """What is known of those that are not calibrated, and for whom that is still being asked
        for the first time.
        """
        due = {
            key: one
            for key, one in open_.items()
            if now - self._asked.get((key, one.attempt), now - 2 * _AGAIN) >= _AGAIN
        }
        if due and (self._task is None or self._task.done()):
            for key, one in due.items():
                if (key, one.attempt) not in self._asked:
                    self._pending.add((key, one.attempt))
                self._asked[key, one.attempt] = now
            self._task = asyncio.create_task(self._ask(due))
        if self._task is not None and self._pending:
            await asyncio.wait({self._task}, timeout=_PATIENCE)
        alive = {(key, one.attempt) for key, one in open_.items()}
        self._asked = {name: at for name, at in self._asked.items() if name in alive}
        self._found = {name: one for name, one in self._found.items() if name in alive}
        known = {key: one for (key, _), one in self._found.items()}
        return known, frozenset(key for key, _ in self._pending)

    async def _ask(self, due: Mapping[Key, Examination]) -> None:
        halved = {key: Halved(*one.target.key, edges_of(one.analysis)) for key, one in due.items()}
        answers: Mapping[tuple[str, str], History | NoAnswer] = {}
        try:
            answers = await read_halves(self.prometheus, halved.values(), self.labels)
        except Exception:
            log.exception("reading the history of stable's halves failed")
        finally:
            self._pending -= {(key, one.attempt) for key, one in due.items()}
        for key, one in due.items():
            answer = answers.get(halved[key].key)
            if isinstance(answer, History):
                self._found[key, one.attempt] = answer
            elif answer is not None:
                log.info("%s/%s: over-dispersion: %s", key.namespace, key.name, answer.message)

    async def close(self) -> None:
        """Ends the question under way."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
