"""Work in processes of their own, several at once, that ends in any case.

What hangs is ended, with the stack of where, and takes nothing else with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
#: A process is replaced after so many tasks, with whatever has piled up in it.
_TASKS = 40


class ProcessEnded(Exception):
    """A process ended before its task did: it hung, it crashed or somebody killed it."""


@dataclass
class _Process:
    """One process at a time, which has one task at a time.

    A pool of several with ``max_tasks_per_child`` can stand still on Python 3.11: with more tasks
    than processes it does not always replace those that have ended.
    """

    tasks: int
    pool: ProcessPoolExecutor | None = None
    done: int = 0

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            self.pool, self.done = ProcessPoolExecutor(1, context, _quiet), 0
        try:
            return self.pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            self.done = self.tasks
            raise
        finally:
            self.done += 1
            if self.done >= self.tasks:
                self.end()

    def end(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown()


@dataclass(frozen=True)
class Processes:
    """So many of them. Every method returns at once."""

    _threads: ThreadPoolExecutor
    _idle: SimpleQueue[_Process] = field(default_factory=SimpleQueue)

    @classmethod
    @contextlib.contextmanager
    def at_work(cls, at_once: int, tasks: int = _TASKS) -> Iterator[Processes]:
        """So many processes; what has not begun when they are left is dropped."""
        with ThreadPoolExecutor(at_once) as threads:
            found = cls(threads)
            for _ in range(at_once):
                found._idle.put(_Process(tasks))
            try:
                yield found
            finally:
                threads.shutdown(cancel_futures=True)
                for _ in range(at_once):
                    found._idle.get().end()

    def submit(
        self, name: str, seconds: float, work: Callable[..., _T], *arguments: Any
    ) -> Future[_T]:
        """Has a process do the work; raises ProcessEnded with its name and stack when it takes
        longer than allowed, or ends otherwise.
        """
        return self._threads.submit(self._run, name, seconds, work, arguments)

    def _run(self, name: str, seconds: float, work: Callable[..., Any], arguments: Any) -> Any:
        process = self._idle.get()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                stack = Path(scratch, "stack")
                stack.touch()
                try:
                    return process.run(_bounded, seconds, stack, work, arguments)
                except BrokenProcessPool as error:
                    said = stack.read_text() or "It left no stack, so something else ended it."
                    raise ProcessEnded(
                        f"{name}: its process ended (it may take {seconds:g} s).\n{said}"
                    ) from error
        finally:
            self._idle.put(process)


def _quiet() -> None:
    """The operators' warnings are expected here: only a run that does not end shows the last."""
    logging.getLogger().addHandler(logging.NullHandler())


def _bounded(seconds: float, stack: Path, work: Callable[..., Any], arguments: Any) -> Any:
    """Ends this process when the work takes longer, which an event loop that hangs cannot stop."""
    with stack.open("w") as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            return work(*arguments)
        finally:
            faulthandler.cancel_dump_traceback_later()
