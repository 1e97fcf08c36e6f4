"""Processes in which cases are tried: what hangs is named and ends, and nothing else does."""

from __future__ import annotations

import os
import time

import pytest
from tests.faults.processes import ProcessEnded, Processes

pytestmark = pytest.mark.process


def test_what_hangs_is_ended_and_named_with_its_stack_and_the_others_go_on() -> None:
    with Processes.at_work(2) as processes:
        hangs = processes.submit("update/lost@apply:x:1", 1.0, time.sleep, 3600)
        others = [processes.submit(str(n), 60.0, os.path.basename, f"/{n}") for n in range(6)]
        assert [other.result(60) for other in others] == [str(n) for n in range(6)]
        with pytest.raises(ProcessEnded, match=r"^update/lost@apply:x:1: (.|\n)* in _bounded"):
            hangs.result(60)
        assert processes.submit("after", 60.0, len, "abc").result(60) == 3


def test_a_process_that_dies_is_named_too() -> None:
    with Processes.at_work(1) as processes:
        dies = processes.submit("update/reset@apply:x:1", 60.0, os._exit, 1)
        with pytest.raises(ProcessEnded, match=r"^update/reset@apply:x:1: .*\nIt left no stack"):
            dies.result(60)


def test_all_that_is_submitted_at_once_is_done_though_processes_are_replaced() -> None:
    """Python 3.11's own pool stands still here: it replaces too few of those that have ended."""
    with Processes.at_work(2, tasks=2) as processes:
        asked = [processes.submit(str(n), 60.0, os.getpid) for n in range(9)]
        workers = [one.result(100) for one in asked]
    assert all(workers.count(worker) <= 2 for worker in workers)
    assert len(set(workers)) >= 5


def test_what_the_work_raises_reaches_who_asked_and_ends_no_process() -> None:
    with Processes.at_work(1) as processes:
        with pytest.raises(ValueError, match="invalid literal"):
            processes.submit("wrong", 60.0, int, "x").result(60)
        first, second = (processes.submit("pid", 60.0, os.getpid).result(60) for _ in range(2))
    assert first == second
