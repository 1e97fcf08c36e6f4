"""Fixtures that several folders of tests share."""

from __future__ import annotations

import asyncio
import functools
import gc
import gzip
import inspect
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mooring_dev.control_plane import ControlPlane
from mooring_dev.errors import DevError
from mooring_dev.health import wait_until

REPOSITORY = Path(__file__).parent.parent
#: A test that awaits is cancelled after so much of the time in which pytest-timeout would end it.
_SHARE = 0.9


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real etcd and kube-apiserver without nodes, one for the whole session."""
    with ControlPlane.start(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture(scope="session")
def control_plane_with_crds(control_plane: ControlPlane) -> ControlPlane:
    """The control plane that knows the kinds of mooring.dev."""
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    # Established is not enough: kubectl finds a kind only once discovery and OpenAPI show it.
    for kind in ("mdep", "mrt", "cmrt", "rr"):
        wait_until(
            f"the API server shows {kind}",
            lambda kind=kind: "FIELDS" in _explained(control_plane, kind),  # type: ignore[misc]
            timeout=30.0,
            check=lambda: None,
        )
    return control_plane


def _explained(plane: ControlPlane, kind: str) -> str:
    try:
        return plane.kubectl("explain", kind)
    except DevError:
        return ""


def pytest_sessionstart() -> None:
    """Seek cycles seldom: what tests make is many small objects, and counting frees them.

    At the usual threshold the unit tier looked 10,000 times, for a tenth of its time.
    """
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is collected stays to the end: there is no need to look at it again."""
    gc.collect()
    gc.freeze()
    if "hypothesis" in sys.modules:
        _tell_hypothesis_of_utf8()


def _tell_hypothesis_of_utf8() -> None:
    """Writes the table that Hypothesis keeps of the characters of UTF-8, unless it has one.

    It would try 1.1 million of them, two seconds in each process of a fresh checkout. Where a later
    version keeps its table elsewhere, it tries them again.
    """
    from hypothesis.internal.charmap import charmap_file  # seconds that not every session needs

    table = charmap_file("codec-v2-utf-8")
    if not table.exists():
        encodable = [[0, 0xD7FF], [0xE000, 0x10FFFF]]  # all but the surrogates
        table.parent.mkdir(parents=True, exist_ok=True)
        written = table.with_suffix(f".{os.getpid()}")
        written.write_bytes(gzip.compress(json.dumps([encodable, []]).encode(), mtime=1))
        written.replace(table)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Has what awaits too long cancelled from within its event loop; the plugin's signal stays.

    The signal's exception leaves the loop behind the test's back. The loop is closed over an
    operator that still runs then, which can take for ever; a cancellation has fixtures and context
    managers end it first.
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _bounded(item.obj, settings.timeout * _SHARE)


def _bounded(
    test: Callable[..., Coroutine[Any, Any, None]], seconds: float
) -> Callable[..., Coroutine[Any, Any, None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                await test(*args, **kwargs)
        except TimeoutError as error:
            if bound.expired():
                error.add_note(f"the test was not done after {seconds:g} s")
            raise

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the fault runs; they must be known before the folders are collected."""
    group = parser.getgroup("faults")
    group.addoption("--fault-runs", type=int, help="how many single faults of each class to try")
    group.addoption("--fault-seed", type=int, help="the seed that chooses them")
