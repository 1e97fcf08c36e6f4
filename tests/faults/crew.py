"""Cases tried in processes of their own, several at once, on one control plane.

A run waits most of its time, and a fault that ends one process ends no other. Each has a namespace,
a proxy, pods, routers and operators of its own; the API server alone is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.apiserver.cluster import Api
from tests.faults.runs import Case, Undisturbed, record, try_case

#: A run takes a second of CPU here and one of the API server's, and some eight seconds in all.
AT_ONCE = 3 * (os.cpu_count() or 1)
#: A process is replaced after so many cases, with whatever has piled up in it.
_CASES_PER_PROCESS = 40


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

    executor: ProcessPoolExecutor
    kubeconfig: Path

    @classmethod
    @contextlib.contextmanager
    def at_work(cls, kubeconfig: Path, at_once: int = AT_ONCE) -> Iterator[Crew]:
        """So many processes; what has not begun when it is left is dropped."""
        executor = ProcessPoolExecutor(
            at_once,
            multiprocessing.get_context("spawn"),
            _quiet,
            max_tasks_per_child=_CASES_PER_PROCESS,
        )
        try:
            yield cls(executor, kubeconfig)
        finally:
            executor.shutdown(cancel_futures=True)

    def record(self, story: str) -> Future[Undisturbed]:
        """A story without a fault; raises AssertionError as tests.faults.runs.record does."""
        return self.executor.submit(_record, self.kubeconfig, story)

    def try_case(self, case: Case, undisturbed: Undisturbed, folder: Path) -> Future[Line]:
        """A case; a history in which something was found is kept in ``folder``."""
        return self.executor.submit(_try, self.kubeconfig, case, undisturbed, folder)


def _quiet() -> None:
    """The operators' warnings are expected here, and a finding says what is wrong."""
    logging.disable(logging.CRITICAL)


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
