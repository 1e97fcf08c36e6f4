"""Names that no model should have: what is told of them can be stored, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.core.drift.collected import HOUR, STABLE, reference, spec, traffic

from mooring.core.conditions import Finding
from mooring.core.drift.memory import Memory
from mooring.core.drift.reference import DATA_KEY, InvalidReference, Reference, from_config_map
from mooring.core.drift.tick import begun, judge, skipped
from mooring.core.drift.watch import Watch
from mooring.core.monitoring import Report

Json = dict[str, Any]
_CRD = Path(__file__).parents[3] / "crds" / "mooring.dev_modeldeployments.yaml"
#: A ConfigMap holds 1 MiB, and with it goes all that is remembered.
_REPORT = 200_000


def document(feature: str, output: str = "score", category: str = "north") -> str:
    """The usual reference with other names for the amount, the score and a branch."""
    usual = reference()
    amount, branch = usual.features
    (score,) = usual.outputs
    categories = tuple(category if one == "north" else one for one in branch.grid.categories)
    found = Reference(
        (
            replace(amount, grid=replace(amount.grid, name=feature)),
            replace(branch, grid=replace(branch.grid, categories=categories)),
        ),
        (replace(score, grid=replace(score.grid, name=output)),),
    )
    return json.dumps(found.to_json())


def named(**names: str) -> Reference:
    """It as it is read."""
    return Reference.from_text(document(**names))


def judged(found: Reference, what: str) -> Report:
    """The report after seven windows of which something is to be said."""
    memory, report = begun(HOUR, 2 * HOUR)
    for hour in range(1, 8):
        wrong: Json = {"shift": {"shift": 3.0, "score_shift": 0.4}, "missing": {"missing": 0.5}}
        counted = traffic(hour, **wrong.get(what, {}))
        (features,), (outputs,) = counted.features.values(), counted.outputs.values()
        branch = features["branch"] if what != "shift" else {0: 2000.0}
        cells = {found.features[0].name: features["amount"], "branch": branch}
        if what == "absent":
            cells = {"branch": branch}
        answers = {(STABLE, found.outputs[0].name): next(iter(outputs.values()))}
        counted = replace(
            counted, features={found.grid_hash: cells}, outputs={found.grid_hash: answers}
        )
        span = hour * HOUR, (hour + 1) * HOUR
        memory, report = judge(Watch(spec(), STABLE), found, counted, memory, report, *span)
        memory = Memory.from_bytes(memory.to_bytes())
        report = Report.from_text(report.to_text())
    return report


def too_long(value: Any, schema: Json, at: str) -> Iterator[str]:
    """Texts that the API server refuses."""
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        yield f"{at}: {len(value)}"
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from too_long(one, schema.get("properties", {}).get(name, {}), f"{at}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from too_long(one, schema.get("items", {}), f"{at}[]")


def refused(report: Report) -> list[str]:
    """What of a report the API server would refuse: in status, and as a ConfigMap."""
    definition = yaml.load(_CRD.read_text(), yaml.CSafeLoader)["spec"]["versions"][0]
    status = definition["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert status["drift"]["properties"]["message"]["maxLength"] == 4096
    found = list(too_long(report.drift, status["drift"], "drift"))
    conditions = [{"message": one.message} for one in report.conditions.values()]
    found += too_long(conditions, status["conditions"], "conditions")
    if len(report.to_text().encode()) > _REPORT:
        found.append(f"report: {len(report.to_text())}")
    return found


@pytest.mark.parametrize("what", ["shift", "missing", "absent", "steady"])
@pytest.mark.parametrize(
    "names",
    [{"feature": "n" * 254}, {"feature": "n" * 5_000}, {"feature": "ü" * 200_000},
     {"feature": ""}, {"feature": "a\0b\n"}, {"feature": "a", "output": "o" * 60_000},
     {"feature": "a", "category": "c" * 60_000}],
    ids=["a-little-long", "longer-than-a-message", "huge", "empty", "odd", "output", "category"],
)  # fmt: skip
def test_what_is_told_of_an_absurd_name_can_be_stored(names: dict[str, str], what: str) -> None:
    report = judged(named(**names), what)

    assert refused(report) == []
    assert report.drift["message"]


def test_a_long_name_is_cut_and_what_follows_it_in_a_sentence_is_not() -> None:
    report = judged(named(feature="n" * 5_000), "shift")

    worst = report.drift["features"][0]["feature"]
    assert worst == "n" * 252 + "…"
    assert "PSI" in report.conditions["Drifted"].message


def test_what_is_wrong_with_an_absurd_reference_can_be_stored() -> None:
    memory, report = begun(HOUR, 2 * HOUR)
    _, report = skipped(
        memory, report, Finding("ReferenceInvalid", "n" * 60_000, "Unknown"), HOUR, 2 * HOUR
    )
    assert refused(report) == []
    _, report = begun(HOUR, 2 * HOUR, Finding("ReferenceInvalid", "n" * 60_000, "Unknown"))
    assert refused(report) == []


@pytest.mark.parametrize("place", ["feature", "output", "category"])
def test_a_name_that_is_no_text_is_refused_in_a_sentence(place: str) -> None:
    """Half of a surrogate pair, which JSON can spell and nothing can store."""
    text = document(**{"feature": "amount", place: "a\ud800"})
    with pytest.raises(InvalidReference, match="no Unicode"):
        from_config_map({"metadata": {"name": "r"}, "data": {DATA_KEY: text}})
