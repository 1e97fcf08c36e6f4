"""A test that hangs ends, and what it has begun ends before its event loop does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_HANGS = """
import asyncio
import pytest

async def _watch():
    helper = asyncio.create_task(asyncio.Event().wait())
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("the helper has ended first" if helper.done() else "ended in good order")
        helper.cancel()

@pytest.fixture
async def lent():
    yield
    print("the fixture has ended")

{mark}
async def test_hangs(lent):
    watching = asyncio.create_task(_watch())
    try:
        await asyncio.Event().wait()
    finally:
        watching.cancel()
        await asyncio.wait([watching])

async def test_comes_after():
    pass
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("mark", "limit", "seconds"),
    [("", "5", "4.5"), ("@pytest.mark.timeout(5)", "600", "4.5")],
)
def test_a_test_that_hangs_is_cancelled_so_that_what_it_has_begun_ends_before_the_loop(
    tmp_path: Path, mark: str, limit: str, seconds: str
) -> None:
    path = tmp_path / "test_hanging.py"
    path.write_text(_HANGS.format(mark=mark))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest",
         "-s", "-p", "no:cacheprovider", "--timeout", limit, str(path)],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'dev'}"},
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert f"the test was not done after {seconds} s" in done.stdout
    for said in ("the helper has ended first", "was destroyed but it is pending"):
        assert said not in done.stdout + done.stderr
    assert "ended in good order" in done.stdout.partition("the fixture has ended")[0]
