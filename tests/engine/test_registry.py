"""The model registry is asked beside the workers, each name once, and keys wake only for news."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mooring.adapters.mlflow import UNSET
from mooring.core.registry import UNAVAILABLE, Answer, NotRegistered, Registered
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.registry import RegistryWatch
from mooring.settings import SettingsError, load

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
FRAUD, OTHER = Key("shop", "fraud"), Key("shop", "other")
CHAMPION = {"spec": {"model": {"uri": "mlflow://fraud@champion"}}}
AWAY = NotRegistered(UNAVAILABLE, "the model registry cannot be reached", lasting=False)


def version(number: int) -> Registered:
    return Registered("fraud", str(number), f"s3://b/{number}")


class Said:
    """A registry that says what it is told to, and counts what it is asked."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.changed = asyncio.Event()

    async def resolve(self, uri: str) -> Answer:
        self.asked.append(uri)
        self.changed.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def again(self) -> None:
        """Waits until it is asked once more."""
        self.changed.clear()
        async with asyncio.timeout(5):
            await self.changed.wait()


@contextlib.asynccontextmanager
async def watching(said: Said, interval: float) -> AsyncIterator[tuple[RegistryWatch, KeyedQueue]]:
    queue = KeyedQueue()
    watch = RegistryWatch(said, queue, interval)
    task = asyncio.create_task(watch.run())
    try:
        yield watch, queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def woken(queue: KeyedQueue) -> Key:
    async with asyncio.timeout(5):
        key = await queue.get()
    queue.done(key)
    return key


async def test_a_new_name_is_asked_for_at_once_and_its_key_woken() -> None:
    said = Said(version(7))
    async with watching(said, 3600) as (watch, queue):
        assert watch.look_up(FRAUD, CHAMPION) is None
        assert await woken(queue) == FRAUD
        assert watch.look_up(FRAUD, CHAMPION) == version(7)


async def test_a_name_that_two_share_is_asked_for_once_and_both_are_woken() -> None:
    said = Said(version(7))
    async with watching(said, 3600) as (watch, queue):
        watch.look_up(FRAUD, CHAMPION)
        watch.look_up(OTHER, CHAMPION)
        assert {await woken(queue), await woken(queue)} == {FRAUD, OTHER}
        assert said.asked == ["mlflow://fraud@champion"]


async def test_only_news_wakes_a_key() -> None:
    said = Said(version(7))
    async with watching(said, 0.02) as (watch, queue):
        watch.look_up(FRAUD, CHAMPION)
        await woken(queue)
        await said.again()
        await said.again()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await queue.get()
        said.answer = version(8)
        assert await woken(queue) == FRAUD
        assert watch.look_up(FRAUD, CHAMPION) == version(8)


async def test_who_cannot_be_reached_for_one_name_is_not_asked_for_all() -> None:
    said = Said(AWAY)
    async with watching(said, 3600) as (watch, queue):
        for number in range(100):
            uri = f"mlflow://m{number}/1"
            watch.look_up(Key("shop", f"m{number}"), {"spec": {"model": {"uri": uri}}})
        for _ in range(100):
            await woken(queue)
        assert len(said.asked) <= 4
        assert (
            watch.look_up(Key("shop", "m9"), {"spec": {"model": {"uri": "mlflow://m9/1"}}}) == AWAY
        )


async def test_a_defect_of_ours_is_said_and_the_asking_goes_on() -> None:
    said = Said(RuntimeError("oops"))
    async with watching(said, 0.02) as (watch, queue):
        watch.look_up(FRAUD, CHAMPION)
        await woken(queue)
        found = watch.look_up(FRAUD, CHAMPION)
        assert isinstance(found, NotRegistered)
        assert "oops" in found.message
        said.answer = version(7)
        await woken(queue)
        assert watch.look_up(FRAUD, CHAMPION) == version(7)


async def test_what_nobody_names_any_more_is_not_asked_for() -> None:
    said = Said(version(7))
    async with watching(said, 0.02) as (watch, queue):
        watch.look_up(FRAUD, CHAMPION)
        watch.look_up(OTHER, {"spec": {"model": {"uri": "mlflow://other/1"}}})
        await woken(queue)
        await woken(queue)
        watch.look_up(FRAUD, {"spec": {"model": {"uri": "s3://b/1"}}})
        said.asked.clear()
        await said.again()
        await said.again()
        assert set(said.asked) == {"mlflow://other/1"}


@pytest.mark.parametrize("resource", [{}, {"spec": None}, {"spec": {"model": {"uri": 7}}}])
async def test_a_resource_of_any_form_is_looked_at(resource: dict[str, Any]) -> None:
    watch = RegistryWatch(Said(version(7)), KeyedQueue(), 30.0)
    assert watch.look_up(FRAUD, resource) is None


async def test_without_a_registry_a_name_says_what_is_missing() -> None:
    assert RegistryWatch(None, KeyedQueue(), 30.0).look_up(FRAUD, CHAMPION) == UNSET
    assert "config.registry.url" in UNSET.message


def test_the_settings_of_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("registry: {url: 'https://m/x/', bearerTokenFile: /t, interval: 1m}")
    settings = load(path)
    access = settings.registry.access()
    assert access is not None
    assert (access.url, access.bearer_token_file) == ("https://m/x", Path("/t"))
    assert settings.registry.interval.total_seconds() == 60
    assert settings.rendering().registry_url == "https://m/x"
    assert load(None).registry.access() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{url: 'ftp://m'}", "address such as"),
        ("{url: 'https://u:p@m'}", "must not hold credentials"),
        ("{url: 'https://m/api/2.0'}", "before /api"),
        ("{url: 'https://m?x=1'}", "before /api"),
        ("{url: 'https://m:99999'}", "port"),
        ("{url: 'http://m', bearerTokenFile: /t}", "allowHttp"),
        (
            "{url: 'https://m', bearerTokenFile: /t, basicAuth: {username: a, passwordFile: /p}}",
            "not both",
        ),
        ("{url: 'https://m', interval: 1s}", "between 5s and 1h"),
        (
            f"{{url: 'https://m', bearerTokenFile: {TOKEN}}}",
            "API server only",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"registry: {text}")
    with pytest.raises(SettingsError, match=words):
        load(path)
