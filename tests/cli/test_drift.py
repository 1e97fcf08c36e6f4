"""``mooring drift`` and ``mooring report``: what they show of windows that were really judged."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli import objects
from tests.cli.api_server import FakeApi
from tests.cli.conftest import Mooring
from tests.core.drift.collected import (
    HOUR,
    STABLE,
    raw_spec,
    reference,
    reference_map,
    spec,
    traffic,
)

from mooring.api import parse_model_deployment
from mooring.core.drift.memory import Memory
from mooring.core.drift.reference import from_config_map
from mooring.core.drift.tick import begun, judge
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import REPORT_KEY, STATE_KEY, Report

MAPS = f"/api/v1/namespaces/{objects.NAMESPACE}/configmaps"
FIRST = 494_000


@cache
def judged() -> tuple[Memory, Report]:
    watch = Watch(spec(), STABLE)
    memory, report = begun(FIRST * HOUR, (FIRST + 1) * HOUR)
    for hour in range(FIRST, FIRST + 14):
        late = hour - FIRST
        counted = traffic(hour, shift=0.6 if late >= 8 else 0.0, missing=0.3 if late == 5 else 0.0)
        span = hour * HOUR, (hour + 1) * HOUR
        memory, report = judge(watch, reference(), counted, memory, report, *span)
    return memory, report


def put(api: FakeApi, *, state: bytes | None = None, **monitoring: Any) -> None:
    memory, report = judged()
    found = objects.deployment(objects.rolling_out())
    found["spec"]["monitoring"] = raw_spec(**monitoring)
    found["status"]["drift"] = report.drift
    found["status"]["conditions"] += [
        {"type": kind, "status": one.status, "reason": one.reason, "message": one.message}
        for kind, one in report.conditions.items()
    ]
    api.put(objects.DEPLOYMENTS, found)
    raw = memory.to_bytes() if state is None else state
    api.put(
        MAPS,
        {
            "metadata": {"name": "fraud-drift", "namespace": "shop"},
            "data": {REPORT_KEY: report.to_text()},
            "binaryData": {STATE_KEY: base64.b64encode(raw).decode()},
        },
    )
    api.put(MAPS, reference_map())


@pytest.fixture
def monitored(api: FakeApi) -> FakeApi:
    api.objects[MAPS] = {}
    put(api)
    return api


def test_the_table_names_what_drifted_first_and_draws_both_sides(
    monitored: FakeApi, mooring: Mooring
) -> None:
    result = mooring("drift", "fraud", "-n", "shop")

    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("fraud  Drifted  2000 rows in the window to ")
    assert "1 of 3 features drifted: amount (" in lines[1]
    assert "windows  .....U...DDDDD" in result.output
    header, first, *rest = [line for line in lines[3:] if line]
    assert header.split() == [
        "FEATURE", "STATE", "PSI", "EVIDENCE", "ROWS", "REFERENCE", "NOW", "BESIDES",
    ]  # fmt: skip
    assert first.split()[:2] == ["amount", "Drifted"]
    bars = [word for word in first.split() if set(word) <= set("▁▂▃▄▅▆▇█")]
    assert len(bars) == 2
    assert bars[0] != bars[1]
    assert [line.split()[0] for line in rest] == ["score@abc", "branch"] or [
        line.split()[0] for line in rest
    ] == ["branch", "score@abc"]


def test_what_labels_say_has_a_line_of_its_own(monitored: FakeApi, mooring: Mooring) -> None:
    steady = {"state": "Steady", "output": "score", "labels": 2310, "score": 2.0,
              "threshold": 8.0, "message": "labels are as the reference's"}  # fmt: skip
    none = {"state": "InsufficientData", "output": "score", "labels": 0, "message": "no label"}
    for concept, line in (
        (steady, "labels   Steady  25% of the evidence  2310 of score: labels are as the"),
        (none, "labels   InsufficientData  0 of score: no label"),
    ):
        for found in monitored.objects[objects.DEPLOYMENTS].values():
            found["status"]["drift"]["concept"] = concept
        result = mooring("drift", "fraud", "-n", "shop")
        assert result.exit_code == 0, result.output
        assert line in result.output


def test_the_table_fits_a_narrow_terminal(monitored: FakeApi, mooring: Mooring) -> None:
    result = mooring("drift", "fraud", "-n", "shop", COLUMNS="60")

    assert result.exit_code == 0
    assert all(len(line) <= 60 for line in result.output.splitlines())
    assert "amount" in result.output


def test_the_data_has_bins_and_shares(monitored: FakeApi, mooring: Mooring) -> None:
    result = mooring("drift", "fraud", "-n", "shop", "-o", "json")

    found = json.loads(result.output)
    amount = found["features"][0]
    assert amount["name"] == "amount"
    assert len(amount["bins"]) == len(amount["reference"]) == len(amount["current"])
    assert sum(amount["reference"]) == pytest.approx(1)
    assert sum(amount["current"]) == pytest.approx(1)
    assert amount["evidence"] > 1
    assert found["past"][-1]["state"] == "Drifted"
    assert found["drift"]["state"] == "Drifted"


def test_features_that_status_leaves_out_stand_as_their_last_window_says(
    monitored: FakeApi, mooring: Mooring
) -> None:
    watch = Watch(spec(), STABLE)
    memory, report = begun(FIRST * HOUR, (FIRST + 1) * HOUR)
    span = FIRST * HOUR, (FIRST + 1) * HOUR
    broken = traffic(FIRST, rows=2000, missing=0.4)
    memory, report = judge(watch, reference(), broken, memory, report, *span)
    put(monitored, state=memory.to_bytes())
    for found in monitored.objects[objects.DEPLOYMENTS].values():
        found["status"]["drift"]["features"] = []

    result = mooring("drift", "fraud", "-n", "shop", "-o", "json")

    states = {one["name"]: one["state"] for one in json.loads(result.output)["features"]}
    assert states == {"amount": "Unhealthy", "branch": "Steady", "score": "Steady"}


def test_a_revision_that_answers_no_more_is_not_said_to_be_unhealthy(
    monitored: FakeApi, mooring: Mooring
) -> None:
    memory, report = begun(FIRST * HOUR, (FIRST + 1) * HOUR)
    for hour, revision in ((FIRST, "old"), (FIRST + 1, STABLE)):
        watch, counted = Watch(spec(), revision), traffic(hour, rows=2000, revision=revision)
        span = hour * HOUR, (hour + 1) * HOUR
        memory, report = judge(watch, reference(), counted, memory, report, *span)
    put(monitored, state=memory.to_bytes())

    result = mooring("drift", "fraud", "-n", "shop", "-o", "json")

    scores = [one for one in json.loads(result.output)["features"] if one["name"] == "score"]
    assert {one["revision"]: one["state"] for one in scores} == {STABLE: "Steady", "old": "NoData"}


def test_beside_a_season_it_is_said_which_reference_is_shown(
    monitored: FakeApi, mooring: Mooring
) -> None:
    seasonal = {"configMap": "fraud-reference", "seasonal": {"offset": "24h", "weeks": 2}}
    put(monitored, reference=seasonal)

    result = mooring("drift", "fraud", "-n", "shop")

    assert "compared with the same hours of earlier" in " ".join(result.output.split())


def test_one_that_is_not_monitored_says_how_to_begin(api: FakeApi, mooring: Mooring) -> None:
    result = mooring("drift", "fraud", "-n", "shop")

    assert result.exit_code == 1
    assert "fraud is not monitored: set spec.monitoring" in result.output


def test_before_the_first_window_that_is_said(monitored: FakeApi, mooring: Mooring) -> None:
    monitored.delete(MAPS, "fraud-drift")

    result = mooring("drift", "fraud", "-n", "shop")

    assert result.exit_code == 0
    assert "no window is over yet" in result.output


@pytest.mark.parametrize("state", [b"", b"x", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_memory_that_was_damaged_is_said(
    monitored: FakeApi, mooring: Mooring, state: bytes
) -> None:
    put(monitored, state=state)

    result = mooring("drift", "fraud", "-n", "shop")

    assert result.exit_code == 0
    assert "fraud-drift was damaged" in result.output


def test_without_the_reference_the_rest_is_shown(monitored: FakeApi, mooring: Mooring) -> None:
    monitored.delete(MAPS, "fraud-reference")

    result = mooring("drift", "fraud", "-n", "shop")

    assert result.exit_code == 0
    assert "histograms need ConfigMap fraud-reference" in result.output
    assert "fraud  Drifted" in result.output


class Page(HTMLParser):
    """Checks that every element is closed, and collects what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "onload")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def test_the_page_needs_nothing_else_and_plots_every_feature(
    monitored: FakeApi, mooring: Mooring, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"

    result = mooring("report", "fraud", "-n", "shop", "-f", str(file))

    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(file)
    text = file.read_text(encoding="utf-8")
    page = parsed(text)
    assert page.links == []
    assert "script" not in page.tags
    assert "http" not in text.replace("http-equiv", "")
    assert page.tags.count("figure") == 3
    assert page.tags.count("svg") == 7  # the windows, and two for every feature
    assert "amount" in text
    assert ">≤ -1.2809</text>" in text, "the first bin reads like the others"


def test_the_page_says_what_labels_say(monitored: FakeApi, mooring: Mooring) -> None:
    for found in monitored.objects[objects.DEPLOYMENTS].values():
        found["status"]["drift"]["concept"] = {
            "state": "Drifted", "output": "score<b>", "labels": 2310, "message": "accuracy is .8",
        }  # fmt: skip
    text = mooring("report", "fraud", "-n", "shop", "-f", "-").output
    parsed(text)
    assert "Labels of score&lt;b&gt;: Drifted" in text
    assert "2310 judged" in text
    assert "accuracy is .8" in text


def test_the_page_goes_to_standard_output(monitored: FakeApi, mooring: Mooring) -> None:
    result = mooring("report", "fraud", "-n", "shop", "-f", "-")

    assert result.output.startswith("<!doctype html>")


def test_a_place_that_cannot_be_written_is_named(monitored: FakeApi, mooring: Mooring) -> None:
    result = mooring("report", "fraud", "-n", "shop", "-f", "/nowhere/page.html")

    assert result.exit_code == 1
    assert "/nowhere/page.html cannot be written: No such file or directory" in result.output


def test_what_comes_from_the_cluster_is_escaped(monitored: FakeApi, mooring: Mooring) -> None:
    found = monitored.objects[objects.DEPLOYMENTS]["fraud"]
    found["status"]["drift"] = {
        **found["status"]["drift"], "message": "<script>alert(1)</script>", "state": '"><b>',
    }  # fmt: skip
    monitored.put(objects.DEPLOYMENTS, found)

    text = mooring("report", "fraud", "-n", "shop", "-f", "-").output

    page = parsed(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in text


EXAMPLE = Path(__file__).parents[2] / "examples" / "drift"


def test_the_reference_of_the_example_knows_all_that_it_watches(
    mooring: Mooring, tmp_path: Path
) -> None:
    table = tmp_path / "training.csv"
    subprocess.run(
        [sys.executable, EXAMPLE / "payments.py", "table", str(table)], check=True, timeout=60
    )
    built = mooring("reference", "build", str(table), "--name", "fraud-reference",
                    "--prediction", "fraud", "-o", "json")  # fmt: skip
    text = built.stdout
    found = from_config_map(json.loads(text))

    for folder in (EXAMPLE, EXAMPLE.parent / "seasonal"):
        resource = yaml.safe_load((folder / "modeldeployment.yaml").read_text())
        monitoring = parse_model_deployment(resource, strict=True).spec.monitoring
        assert monitoring is not None
        assert Watch(monitoring).unknown(found) == ()
        assert len(Watch(monitoring).watched(found)) == 4
        assert [one.name for one in found.outputs] == ["fraud"]
