"""Cases tried in processes of their own, several at once, on one control plane.

A run waits most of its time, and a fault that ends one process ends no other. Each has a namespace,
a proxy, pods, routers and operators of its own; the API server alone is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from tests.apiserver.cluster import Api
from tests.faults.processes import Processes
from tests.faults.runs import LONGEST, Case, Undisturbed, record, try_case

#: A run takes a second of CPU here and one of the API server's, and some eight seconds in all.
AT_ONCE = 3 * (os.cpu_count() or 1)
#: A run bounds itself, and waits up to 90 s for its operator to end; so much later (seconds) its
#: process is ended.
_GRACE = 100.0


@dataclass(frozen=True)
class Line:
    """One case that was tried, as it stands in the journal.

    ``code``: of which state of the operator and of the tests (see tests.faults.campaign).
    """

    case: str
    struck: bool
    seconds: float
    findings: tuple[str, ...]
    kept: str = ""
    code: str = ""


@dataclass(frozen=True)
class Crew:
    """The processes, and where they work. Every method returns at once."""

    processes: Processes
    kubeconfig: Path

    @classmethod
    @contextlib.contextmanager
    def at_work(cls, kubeconfig: Path, at_once: int = AT_ONCE) -> Iterator[Crew]:
        """So many processes; what has not begun when it is left is dropped."""
        with Processes.at_work(at_once) as processes:
            yield cls(processes, kubeconfig)

    def record(self, story: str) -> Future[Undisturbed]:
        """A story without a fault; raises AssertionError as tests.faults.runs.record does, and
        ProcessEnded.
        """
        seconds = 2 * (LONGEST + _GRACE)  # it is told twice
        return self.processes.submit(story, seconds, _record, self.kubeconfig, story)

    def try_case(self, case: Case, undisturbed: Undisturbed, folder: Path) -> Future[Line]:
        """A case; a history in which something was found is kept in ``folder``. Raises
        ProcessEnded.
        """
        return self.processes.submit(
            str(case), LONGEST + _GRACE, _try, self.kubeconfig, case, undisturbed, folder
        )


def _record(kubeconfig: Path, story: str) -> Undisturbed:
    async def run() -> Undisturbed:
        async with Api.connect(kubeconfig) as api:
            with tempfile.TemporaryDirectory() as scratch:
                return await record(api, Path(scratch), story)

    return asyncio.run(run())


def _try(kubeconfig: Path, case: Case, undisturbed: Undisturbed, folder: Path) -> Line:
    async def run() -> Line:
        started = time.monotonic()
        async with Api.connect(kubeconfig) as api:
            with tempfile.TemporaryDirectory() as scratch:
                outcome = await try_case(api, Path(scratch), case, undisturbed)
        kept = ""
        if outcome.findings:
            name = "".join(c if c.isalnum() or c == "-" else "_" for c in str(case))
            kept = str(folder / f"{name}.jsonl")
            outcome.history.save(Path(kept))
        seconds = round(time.monotonic() - started, 1)
        return Line(str(case), outcome.struck, seconds, outcome.findings, kept)

    return asyncio.run(run())
