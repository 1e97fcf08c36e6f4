"""What the cache of a node keeps, and what it drops for what."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mooring_fetcher import blobs
from mooring_fetcher.blobs import MIN_BLOB, Blob, Keeper

MIB = 1 << 20


def bring(keeper: Keeper, name: str, body: bytes, *, size: int | None = None, at: int = 0) -> bool:
    """Fills a blob as one connection would; whether it is whole afterwards."""
    blob = keeper.fill(name, size or len(body), at)
    assert blob is not None
    file = os.open(blob.path, os.O_CREAT | os.O_WRONLY)
    taken = keeper.add(blob, file, at, body)
    whole = keeper.left(blob, file, keep=taken)
    os.close(file)
    return whole


def content(keeper: Keeper, name: str, size: int) -> bytes | None:
    blob = keeper.read(name, size, 0)
    if blob is None:
        return None
    held = blob.path.read_bytes()
    keeper.done(blob)
    return held


def kept(keeper: Keeper, *names: str, size: int = MIB) -> set[str]:
    return {name for name in names if content(keeper, name, size) is not None}


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path, 4 * MIB)


def test_what_was_brought_whole_is_read(keeper: Keeper) -> None:
    assert bring(keeper, "a", b"x" * MIB)
    assert content(keeper, "a", MIB) == b"x" * MIB
    # Another size would be other bytes.
    assert content(keeper, "a", MIB + 1) is None


def test_one_fills_and_the_others_are_told_to_read(keeper: Keeper) -> None:
    assert keeper.fill("a", MIB, 0) is not None
    assert keeper.fill("a", MIB, 0) is None
    assert keeper.read("a", MIB, 0) is not None


def test_readers_follow_whoever_fills(keeper: Keeper) -> None:
    blob = keeper.fill("a", 2 * MIB, 0)
    assert blob is not None
    file = os.open(blob.path, os.O_CREAT | os.O_WRONLY)
    seen: list[int] = []

    def follow() -> None:
        at = 0
        while at < 2 * MIB and (reach := keeper.wait_beyond(blob, at)) > at:
            at = reach
            seen.append(at)

    reader = threading.Thread(target=follow)
    reader.start()
    keeper.add(blob, file, 0, b"x" * MIB)
    keeper.add(blob, file, MIB, b"y" * MIB)
    reader.join(10)
    keeper.left(blob, file, keep=True)
    os.close(file)
    assert seen[-1] == 2 * MIB


def test_a_filler_that_leaves_is_followed_by_the_next_from_there_on(keeper: Keeper) -> None:
    assert not bring(keeper, "a", b"x" * 700_000, size=MIB)
    assert keeper.read("a", MIB, 0) is None
    assert keeper.fill("a", MIB, 700_001) is None, "bytes would be missing"
    # It brings some bytes again, which are not new.
    rest = b"x" * 100_000 + b"y" * (MIB - 700_000)
    assert bring(keeper, "a", rest, size=MIB, at=600_000)
    assert content(keeper, "a", MIB) == b"x" * 700_000 + b"y" * (MIB - 700_000)


def test_a_reader_is_told_at_once_that_its_filler_has_left(keeper: Keeper) -> None:
    blob = keeper.fill("a", MIB, 0)
    assert blob is not None
    assert keeper.read("a", MIB, 0) is blob
    keeper.left(blob, -1, keep=True)
    assert keeper.wait_beyond(blob, 0) == 0


def test_a_reader_waits_only_so_long(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "GROWTH_TIMEOUT", 0.01)
    blob = keeper.fill("a", MIB, 0)
    assert blob is not None
    assert keeper.wait_beyond(blob, 0) == 0


def test_the_least_recently_used_is_dropped_for_a_new_one(keeper: Keeper) -> None:
    for name in "abcd":
        bring(keeper, name, b"x" * MIB)
    assert content(keeper, "a", MIB)
    bring(keeper, "e", b"x" * MIB)
    assert kept(keeper, *"abcde") == {"a", "c", "d", "e"}
    assert keeper.held == (4, 4 * MIB)
    assert keeper.counts.evictions == 1


def test_nothing_is_dropped_for_what_was_only_asked_for(keeper: Keeper) -> None:
    for name in "abcd":
        bring(keeper, name, b"x" * MIB)
    assert keeper.fill("e", 4 * MIB, 0) is not None
    assert kept(keeper, *"abcd") == set("abcd")


def test_what_is_being_read_is_not_dropped_and_the_bound_holds(keeper: Keeper) -> None:
    reading: list[Blob | None] = []
    for name in "abcd":
        bring(keeper, name, b"x" * MIB)
        reading.append(keeper.read(name, MIB, 0))
    assert not bring(keeper, "e", b"x" * MIB)
    assert keeper.held == (4, 4 * MIB)
    assert reading[0] is not None
    keeper.done(reading[0])
    assert bring(keeper, "e", b"x" * MIB)
    assert kept(keeper, *"abcde") == set("bcde")


@pytest.mark.parametrize("size", [MIN_BLOB - 1, 4 * MIB + 1])
def test_what_is_too_small_or_larger_than_the_cache_is_left_out(keeper: Keeper, size: int) -> None:
    assert keeper.fill("a", size, 0) is None


def test_what_a_reader_found_wrong_is_dropped_also_while_it_is_filled(keeper: Keeper) -> None:
    bring(keeper, "a", b"x" * MIB)
    keeper.forget("a")
    assert kept(keeper, "a") == set()
    blob = keeper.fill("b", MIB, 0)
    assert blob is not None
    keeper.forget("b")
    file = os.open(blob.path, os.O_CREAT | os.O_WRONLY)
    assert not keeper.add(blob, file, 0, b"x")
    assert not keeper.left(blob, file, keep=False)
    os.close(file)
    assert keeper.held == (0, 0)
    assert list(keeper.folder.iterdir()) == []


def test_a_restart_keeps_what_is_whole_with_its_age_and_nothing_else(tmp_path: Path) -> None:
    before = Keeper(tmp_path, 4 * MIB)
    for age, name in enumerate("abc"):
        bring(before, name, b"x" * MIB)
        os.utime(tmp_path / f"{name}-{MIB}", (1000 - age, 1000 - age))
    bring(before, "half", b"x", size=MIB)
    (tmp_path / f"torn-{MIB}").write_bytes(b"x")
    (tmp_path / "foreign").write_bytes(b"x")
    after = Keeper(tmp_path, 2 * MIB)
    assert after.held == (2, 2 * MIB)
    assert kept(after, *"abc") == {"a", "b"}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_filler_whose_blob_was_dropped_leaves_the_next_fillers_file_alone(keeper: Keeper) -> None:
    first = keeper.fill("a", MIB, 0)
    assert first is not None
    file = os.open(first.path, os.O_CREAT | os.O_WRONLY)
    assert keeper.add(first, file, 0, b"x" * 1000)
    keeper.forget("a")
    second = keeper.fill("a", MIB, 0)
    assert second is not None
    other = os.open(second.path, os.O_CREAT | os.O_WRONLY)
    assert not keeper.add(first, file, 1000, b"x")
    assert not keeper.left(first, file, keep=False)
    assert keeper.add(second, other, 0, b"y" * MIB)
    assert keeper.left(second, other, keep=True)
    os.close(file)
    os.close(other)
    assert content(keeper, "a", MIB) == b"y" * MIB
    assert keeper.held == (1, MIB)


def test_a_blob_whose_file_is_gone_is_brought_again(keeper: Keeper) -> None:
    bring(keeper, "a", b"x" * MIB)
    (keeper.folder / f"a-{MIB}").unlink()
    assert content(keeper, "a", MIB) is None
    assert keeper.held == (0, 0)
    assert bring(keeper, "a", b"x" * MIB)
    assert content(keeper, "a", MIB) == b"x" * MIB
