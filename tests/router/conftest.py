"""Fixtures of the router's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.router.running import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    # Cookies are given by hand: each request may be another person's.
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield session
