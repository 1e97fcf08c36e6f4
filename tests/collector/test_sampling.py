"""The rows of ``GET /sample``: what they hold, what they never hold, and how much of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from tests.collector.references import answer, exchange, reference, telemetry

from mooring.cli.reference import reference as reference_command
from mooring.core.drift.building import categorical_grid, numeric_grid
from mooring.core.drift.reference import Reference, feature_reference, from_config_map
from mooring_collector import app
from mooring_collector.app import Application
from mooring_collector.extraction import digest
from mooring_collector.sampling import MOST_BYTES, MOST_REVISIONS, Reservoir
from mooring_collector.service import Service
from mooring_collector.settings import Bounds
from mooring_collector.telemetry import Telemetry

REFERENCE = reference(texts=True)


def ask(found: Telemetry, rows: list[tuple[Any, ...]], *scores: float, reply: bytes | None = None,
        revision: str = "aa", traffic: Any = "live") -> None:  # fmt: skip
    """Requests of three numbers and a city."""
    body = {"inputs": [
        {"name": "x", "shape": [len(rows), 3], "datatype": "FP64",
         "data": [value for row in rows for value in row[:3]]},
        {"name": "city", "shape": [len(rows)], "datatype": "BYTES", "data": [r[3] for r in rows]},
    ]}  # fmt: skip
    reply = answer(*(scores or [0.5] * len(rows))) if reply is None else reply
    content = json.dumps(body).encode()
    found.count(revision, traffic, exchange(content, reply), 0.0)


def shown(found: Telemetry) -> list[dict[str, Any]]:
    return [row for rows in found.samples.shown() for row in rows]


async def fetched(found: Telemetry) -> httpx.Response:
    async with http_client(Application(Service(found, Bounds()))) as http:
        return await http.get("/sample")


def http_client(application: Application) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application)
    return httpx.AsyncClient(transport=transport, base_url="http://collector")


# --- what a row says ----------------------------------------------------------------------------


async def test_the_sample_is_a_row_a_line_with_features_and_outputs() -> None:
    found = telemetry(REFERENCE, reservoir=5)
    ask(found, [(1, 2, 3.5, "rome"), (4, 5, 6, None)], 0.25, 0.75)
    answered = await fetched(found)
    assert answered.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answered.text.splitlines()] == [
        {"revision": "aa", "features": {"x[0]": 1.0, "x[1]": 2.0, "x[2]": 3.5, "city": "rome"},
         "outputs": {"score": 0.25}},
        {"revision": "aa", "features": {"x[0]": 4.0, "x[1]": 5.0, "x[2]": 6.0, "city": None},
         "outputs": {"score": 0.75}},
    ]  # fmt: skip


async def test_without_a_sample_store_nothing_is_kept_and_the_path_is_not_there() -> None:
    found = telemetry(REFERENCE)
    ask(found, [(1, 2, 3, "rome")])
    assert shown(found) == []
    assert (await fetched(found)).status_code == 404


@pytest.mark.parametrize("reply", [b"", b"busy", answer(0.5, 0.5), answer(0.5, name="other")])
def test_an_answer_that_says_nothing_of_the_row_leaves_its_outputs_missing(reply: bytes) -> None:
    found = telemetry(REFERENCE, reservoir=5)
    ask(found, [(1, 2, 3, "rome")], reply=reply)
    (row,) = shown(found)
    assert row["features"]["x[0]"] == 1
    assert row["outputs"] == {"score": None}


def test_what_is_no_sample_of_the_traffic_is_not_in_it() -> None:
    found = telemetry(REFERENCE, reservoir=5)
    ask(found, [(1, 2, 3, "rome")], traffic="match")
    ask(found, [(1, 2, 3, "rome")], traffic="shadow")
    assert shown(found) == []


async def test_values_keep_the_type_that_requests_have() -> None:
    """So that a reference built of them expects the same ones."""
    values = np.arange(100.0)
    features = tuple(
        feature_reference(numeric_grid(name, values % 2 if name == "flag" else values), values, t)
        for name, t in (("count", "integer"), ("flag", "boolean"), ("size", "number"))
    )
    found = telemetry(Reference(features), reservoir=5, protocol="tensorflow-serving")
    rows = [
        {"count": 7, "flag": True, "size": 7},
        {"count": 7.5, "flag": 2, "size": "-inf"},
        {"count": 1e300, "flag": None, "size": "much"},
    ]
    body = json.dumps({"instances": rows}).encode()
    found.count("aa", "live", exchange(body, b"{}"), 0.0)
    lines = (await fetched(found)).text.splitlines()
    first, second, third = (json.loads(line)["features"] for line in lines)
    assert str(first) == "{'count': 7, 'flag': True, 'size': 7.0}"
    assert second == {"count": 7.5, "flag": 2, "size": "-Infinity"}
    assert third == {"count": 1e300, "flag": None, "size": None}


# --- what it never says ---------------------------------------------------------------------------


def hashed() -> Reference:
    cities = [digest("rome")] * 700 + [digest("bonn")] * 300
    grid = categorical_grid("city", cities)
    return Reference((*reference().features, feature_reference(grid, cities, "string")))


async def test_excluded_features_are_never_in_it_and_hashed_ones_as_their_hashes() -> None:
    features = [{"name": "x[0]", "exclude": True}, {"name": "x[1]"}, {"name": "city", "hash": True}]
    found = telemetry(hashed(), reservoir=5, features=features)
    ask(found, [(0.123, 2, 3, "bonn"), (0.123, 2, 3, "oslo")])
    text = (await fetched(found)).text
    rows = [json.loads(line)["features"] for line in text.splitlines()]
    assert rows == [{"x[1]": 2, "city": digest("bonn")}, {"x[1]": 2, "city": "(unseen)"}]
    assert not [secret for secret in ("0.123", "bonn", "oslo", digest("oslo")) if secret in text]


async def test_a_hashed_feature_of_a_reference_of_texts_is_not_shown_as_its_text() -> None:
    found = telemetry(REFERENCE, reservoir=5, features=[{"name": "city", "hash": True}])
    ask(found, [(1, 2, 3, "rome")])
    assert "rome" not in (await fetched(found)).text


async def test_a_feature_that_is_not_watched_is_not_in_it() -> None:
    found = telemetry(REFERENCE, reservoir=5, features=[{"name": "city"}])
    ask(found, [(0.123, 2, 3, "rome")])
    assert [row["features"] for row in shown(found)] == [{"city": "rome"}]


# --- how much -------------------------------------------------------------------------------------


def test_a_text_takes_no_more_room_than_its_category() -> None:
    found = telemetry(REFERENCE, reservoir=5)
    ask(found, [(1, 2, 3, "a" * 1_000_000)])
    ((row,),) = found.samples.shown()
    assert row["features"]["city"] == "(unseen)"


def test_the_rows_of_a_revision_take_a_bounded_number_of_bytes() -> None:
    features = [{"name": f"f{i}"} for i in range(499)]
    found = telemetry(reservoir=100_000, features=features)  # and an output
    assert 8 * 500 * found.samples.size <= MOST_BYTES < 8 * 500 * (found.samples.size + 1)


def test_each_revision_has_a_sample_and_the_one_asked_longest_ago_makes_room() -> None:
    found = telemetry(REFERENCE, reservoir=5)
    names = [f"r{i}" for i in range(MOST_REVISIONS)]
    for name in (*names, names[0], "new"):
        ask(found, [(1, 2, 3, "rome")], revision=name)
    assert Counter(row["revision"] for row in shown(found)) == {
        "r0": 2, "r2": 1, "r3": 1, "new": 1
    }  # fmt: skip


def test_rows_are_shown_some_at_a_time() -> None:
    """Making all of them readable at once would hold up what is counted."""
    found = telemetry(REFERENCE, reservoir=10_000)
    ask(found, [(1, 2, 3, "rome")] * 10_000)
    parts = list(found.samples.shown())
    assert sum(map(len, parts)) == 10_000
    assert max(map(len, parts)) < 2_000


async def test_for_a_reader_who_has_left_no_more_is_written() -> None:
    found = telemetry(REFERENCE, reservoir=5_000)
    ask(found, [(1, 2, 3, "rome")] * 5_000)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect" if sent else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/sample"}
    await Application(Service(found, Bounds()))(scope, receive, send)
    assert len(sent) < 5


async def test_readers_who_never_read_are_few_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "READ_SECONDS", 0.1)
    found = telemetry(REFERENCE, reservoir=5)
    ask(found, [(1, 2, 3, "rome")])
    application = Application(Service(found, Bounds()))
    statuses = []

    async def nothing() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def never(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif statuses[-1] == 200:
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/sample"}
    readers = [application(scope, nothing, never) for _ in range(app.MOST_READERS + 2)]
    await asyncio.gather(*readers)
    assert statuses == [200] * app.MOST_READERS + [503] * 2
    async with http_client(application) as http:
        assert (await http.get("/sample")).status_code == 200


def test_every_row_has_the_same_chance_to_be_in_the_reservoir() -> None:
    taken: Counter[float] = Counter()
    for seed in range(300):
        reservoir = Reservoir(20, 1, seed)
        for part in np.array_split(np.arange(200.0)[:, None], 7):
            reservoir.add(part)
        kept = reservoir.kept()[:, 0].tolist()
        assert len(set(kept)) == 20
        taken.update(kept)
    shares = np.array([taken[float(i)] for i in range(200)]) / 300
    # Each is Binomial(300, .1)/300: five standard deviations are .087.
    assert np.abs(shares - 0.1).max() < 0.087
    assert abs(shares[:100].mean() - 0.1) < 0.01


def test_a_reservoir_is_not_full_before_it_has_seen_enough() -> None:
    reservoir = Reservoir(10, 2)
    reservoir.add(np.ones((3, 2)))
    assert reservoir.kept().tolist() == [[1, 1]] * 3


def test_the_sample_is_in_the_order_of_time() -> None:
    """A reference learns from its parts how much the data varies by itself."""
    reservoir = Reservoir(50, 1, seed=1)
    for part in np.array_split(np.arange(2000.0)[:, None], 90):
        reservoir.add(part)
    kept = reservoir.kept()[:, 0]
    assert kept.max() > 1000
    assert np.all(np.diff(kept) > 0)


# --- a reference from it --------------------------------------------------------------------------


async def built(found: Telemetry, folder: Path, *options: str) -> Reference:
    path = folder / "sample.jsonl"
    path.write_text((await fetched(found)).text)
    command = ["build", str(path), "--name", "fraud-live", *options]
    done = CliRunner().invoke(reference_command, command)
    assert done.exit_code == 0, done.output
    return from_config_map(yaml.safe_load(done.stdout))


async def test_a_reference_can_be_built_of_the_sample(tmp_path: Path) -> None:
    found = telemetry(REFERENCE, reservoir=2000)
    chance = np.random.default_rng(1)
    for _ in range(20):
        numbers = chance.normal(size=(64, 3)).tolist()
        cities = chance.choice(["rome", "bonn", "lima"], 64).tolist()
        rows = [(*row, city) for row, city in zip(numbers, cities, strict=True)]
        ask(found, rows, *chance.random(64).tolist())
    live = await built(found, tmp_path)
    assert {one.name for one in live.features} == {"x[0]", "x[1]", "x[2]", "city"}
    assert [one.name for one in live.outputs] == ["score"]
    assert {one.counts.sum() for one in (*live.features, *live.outputs)} == {1280}
    # What is asked next falls where the reference says, in the same collector and any other.
    again = telemetry(live, reservoir=5)
    ask(again, [(0, 0, 0, "bonn")])
    assert [row["features"]["city"] for row in shown(again)] == ["bonn"]


async def test_texts_that_were_not_kept_are_unseen_in_a_reference_of_the_sample(
    tmp_path: Path,
) -> None:
    """As a category, or as missing, they would hide what breaks later."""
    found = telemetry(REFERENCE, reservoir=100)
    for city in ("rome", "oslo", None, "lima"):
        ask(found, [(float(i), i + 0.5, 3, city) for i in range(10)])
    live = await built(found, tmp_path)
    (found_city,) = [one for one in live.features if one.name == "city"]
    assert found_city.grid.categories == ("lima", "rome")
    assert found_city.counts.tolist() == [10, 10, 10, 10]  # and unseen, and missing


async def test_a_hashed_feature_is_built_of_its_hashes(tmp_path: Path) -> None:
    found = telemetry(hashed(), reservoir=50, features=[{"name": "city", "hash": True}])
    ask(found, [(1, 2, 3, "rome"), (1, 2, 3, "bonn")] * 10)
    live = await built(found, tmp_path)
    assert live.features[0].grid.categories == tuple(sorted((digest("bonn"), digest("rome"))))
