"""What one object shows to be wrong is refused, offline and by the API server, with the way out.

The cases stand in `bad_input.yaml` and `good_input.yaml`. Each runs through both: the same rule
must catch it, name the field, and say what to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mooring.api import InvalidResource, lint

Manifest = dict[str, Any]
Create = Callable[[Manifest], Manifest]

LEAST: dict[str, Manifest] = {
    "ModelDeployment": {"model": {"uri": "s3://models/fraud/v7"}, "runtime": {"name": "onnx"}},
    "ModelRuntime": {
        "formats": [{"name": "onnx"}],
        "image": "example.com/server:1",
        "ports": [{"name": "http", "containerPort": 8080}],
    },
    "RetrainingRequest": {
        "deploymentRef": {"name": "fraud"},
        "revision": "abc",
        "trigger": {"type": "Manual"},
        "idempotencyKey": "abc-manual-1",
    },
}
"""The least valid spec of each kind."""


@dataclass(frozen=True)
class Case:
    """What is put into a valid object, the path that must be named, and the words to say."""

    kind: str
    title: str
    put: Manifest
    path: str = ""
    says: str = ""

    def manifest(self) -> Manifest:
        """The least valid object with the value at each dotted path replaced; None removes it."""
        changed: Manifest = {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": self.kind,
            "metadata": {"name": "fraud", "namespace": "default"},
            "spec": copy.deepcopy(LEAST[self.kind]),
        }
        for path, value in self.put.items():
            *parents, last = path.split(".")
            place = changed
            for part in parents:
                place = place.setdefault(part, {})
            if value is None:
                del place[last]
            else:
                place[last] = value
        return changed


def cases(file_name: str) -> list[Case]:
    text = (Path(__file__).parent / file_name).read_text(encoding="utf-8")
    return [
        Case(kind, entry["case"], entry["put"], entry.get("at", ""), entry.get("says", ""))
        for kind, entries in yaml.load(text, yaml.CSafeLoader).items()
        for entry in entries
    ]


def by_title(case: Case) -> str:
    return case.title


BAD = pytest.mark.parametrize("case", cases("bad_input.yaml"), ids=by_title)
GOOD = pytest.mark.parametrize("case", cases("good_input.yaml"), ids=by_title)


@BAD
def test_offline_it_is_refused_with_the_field_and_the_way_out(case: Case) -> None:
    with pytest.raises(InvalidResource) as refused:
        lint(case.manifest())

    (line,) = refused.value.problems
    assert line.startswith(f"{case.path}: ")
    assert case.says in line


@pytest.mark.apiserver
@BAD
def test_at_apply_it_is_refused_with_the_field_and_the_way_out(case: Case, create: Create) -> None:
    answer = create(case.manifest())

    assert answer["reason"] == "Invalid", answer
    causes = [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]
    assert any(field == case.path and case.says in text for field, text in causes), causes
    assert not [text for _, text in causes if "evaluation error" in text]


@GOOD
def test_offline_what_is_right_passes(case: Case) -> None:
    assert lint(case.manifest()).as_dict()["kind"] == case.kind


@pytest.mark.apiserver
@GOOD
def test_at_apply_what_is_right_passes(case: Case, create: Create) -> None:
    good = case.manifest()

    answer = create(good)

    assert answer["kind"] == case.kind, answer
    for name, value in good["spec"].items():
        kept = answer["spec"][name]
        # Defaults may have been added to an object.
        assert kept == (kept | value if isinstance(value, dict) else value)
