"""``mooring simulate``: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mooring.cli import main

QUICK = ["--runs", "40", "--tick", "60s", "--requests", "600", "--ratios", "5"]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *args])


def answer(*args: str) -> dict[str, Any]:
    done = run(*args, "-o", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def deployment(tmp_path: Path, **spec: Any) -> str:
    path = tmp_path / "fraud.yaml"
    raw = {"apiVersion": "mooring.dev/v1alpha1", "kind": "ModelDeployment", "spec": spec}
    path.write_text(yaml.safe_dump(raw | {"metadata": {"name": "fraud"}}))
    return str(path)


def test_it_tells_a_good_candidate_from_bad_ones_and_the_rules_of_others_do_not() -> None:
    found = answer(*QUICK, "--compare")
    good, bad = found["rows"]
    assert (good["ratio"], bad["ratio"]) == (1.0, 5.0)
    assert good["rolledBack"] <= 0.05
    assert good["promoted"] >= 0.9
    assert bad["rolledBack"] == 1.0
    assert bad["medianSeconds"] <= 600
    assert good["others"]["failureLimit 0"]["rolledBack"] >= 0.95


def test_the_same_seed_gives_the_same_answer_and_another_seed_another() -> None:
    few = [*QUICK, "--runs", "10", "--steps", "10=10m"]
    first = answer(*few)
    assert answer(*few) == first
    assert answer(*few, "--seed", "2")["rows"] != first["rows"]


def test_the_text_says_what_was_played_and_what_came_of_it() -> None:
    done = run(*QUICK, "--steps", "10=5m,50=5m", "--ratios", "3")
    assert done.exit_code == 0
    assert "Steps: 10 % for 5m, 50 % for 5m (10m in all)" in done.output
    assert "3× errors" in done.output
    assert "at most 0.05 of the time" in done.output


def test_a_file_gives_steps_alpha_and_the_metric_and_shares_alpha_over_its_metrics(
    tmp_path: Path,
) -> None:
    steps = [
        {"weight": 5, "duration": "2m"},
        {"mirror": 100, "duration": "10m"},
        {"pause": {}},
        {"weight": 25, "duration": "1h30m"},
    ]
    metrics = [
        {"name": "errors", "errorRate": {"maxRatio": 1.5, "max": 0.02}},
        {"name": "latency", "latency": {"quantile": 0.95, "maxRatio": 1.3}},
        {"name": "business", "prometheus": {"query": "up", "min": 1}},
    ]
    path = deployment(
        tmp_path, rollout={"steps": steps}, analysis={"alpha": 0.02, "metrics": metrics}
    )
    found = answer(*QUICK, "-f", path, "--runs", "2")
    assert found["steps"] == [{"weight": 5, "seconds": 120}, {"weight": 25, "seconds": 5400}]
    assert (found["alpha"], found["alphaOfErrors"]) == (0.02, 0.01)
    assert (found["maxRatio"], found["max"]) == (1.5, 0.02)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = deployment(tmp_path, analysis={"alpha": 0.02})
    given = ["--steps", "10=1m", "--alpha", "0.1", "--max-ratio", "2", "--runs", "5"]
    found = answer(*QUICK, "-f", path, *given)
    assert (found["alpha"], found["maxRatio"]) == (0.1, 2.0)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--steps", "x=5m"], 2, "WEIGHT=TIME"),
        (["--steps", "5=2d"], 2, "write a duration"),
        (["--steps", "500=5m"], 2, "WEIGHT=TIME"),
        (["--alpha", "0.5"], 2, "--alpha"),
        (["--requests", "0"], 2, "positive"),
        (["--requests", "many"], 2, "positive"),
        (["--error-rate", "90%"], 2, "below 55 %"),
        (["--tick", "10ms"], 2, "at least 1s"),
        (["--tick", "1h"], 2, "not be longer than the shortest step"),
        (["--steps", "5=0s"], 2, "at least 1s"),
        (["--steps", "50=10m,5=10m"], 2, "weights must rise"),
        (["--max", "150%"], 1, "between 0 and 1"),
    ],
)
def test_what_cannot_be_played_is_refused_with_what_to_do(
    args: list[str], code: int, words: str
) -> None:
    done = run(*args)
    assert done.exit_code == code
    assert words in done.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold one ModelDeployment"),
        ("{", "cannot be read"),
        ("kind: ModelDeployment\nspec: {rollout: {steps: [{pause: {}}]}}", "give --steps"),
        (
            "kind: ModelDeployment\nspec: {analysis: {metrics: [{name: l, latency: {}}]}}",
            "no errorRate metric",
        ),
        (
            "kind: ModelDeployment\nspec: {rollout: {steps: [{weight: 5, duration: 5m, wait: 1}]}}",
            "spec.rollout.steps[0].wait: unknown field: did you mean weight?",
        ),
    ],
)
def test_a_file_that_says_nothing_to_play_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    done = run("-f", str(path))
    assert done.exit_code == 1
    assert words in done.output
    assert str(path) in done.output


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([(5, "5m"), (50, "2d")], "spec.rollout.steps[1].duration: '2d': "),
        ([(5, "0s")], "spec.rollout.steps[0].duration: '0s': a step must last at least 1s"),
        ([(500, "5m")], "spec.rollout.steps[0].weight: 500 is no percentage from 1 to 100"),
        ([("half", "5m")], "spec.rollout.steps[0].weight: 'half' is no percentage"),
        ([(50, "5m"), (5, "5m")], "the weights must rise from step to step"),
    ],
)
def test_a_wrong_step_in_a_file_is_told_of_the_file_and_no_wrong_usage(
    tmp_path: Path, steps: list[tuple[Any, str]], words: str
) -> None:
    written = [{"weight": weight, "duration": duration} for weight, duration in steps]
    path = deployment(tmp_path, rollout={"steps": written})
    done = run("-f", path)
    assert done.exit_code == 1
    assert f"Error: {path}: {words}" in done.output
    assert "Usage:" not in done.output


def test_a_wrong_alpha_in_a_file_is_told_of_the_file(tmp_path: Path) -> None:
    path = deployment(tmp_path, analysis={"alpha": 0.9})
    done = run("-f", path)
    assert done.exit_code == 1
    assert f"Error: {path}: " in done.output


def test_a_file_without_an_analysis_is_said_to_be_judged_by_nothing(tmp_path: Path) -> None:
    path = deployment(tmp_path, rollout={"steps": [{"weight": 5, "duration": "2m"}]})
    done = run(*QUICK, "-f", path, "--runs", "2")
    assert done.exit_code == 0
    assert done.stderr.startswith(f"{path} has no spec.analysis: its rollout is judged by nothing.")
