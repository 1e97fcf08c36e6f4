"""``mooring replay`` as far as no Prometheus is needed; the rest is in tests/adapters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.cli import objects
from tests.cli.api_server import FakeApi
from tests.cli.conftest import Mooring

from mooring.cli import main
from mooring.cli.replay_subject import period

SPEC = """\
apiVersion: mooring.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fraud, namespace: shop}
spec:
  model: {uri: s3://models/fraud/v2}
  runtime: {name: onnx}
  rollout:
    steps: [{weight: 10, duration: 10m}]
"""
ANALYSIS = "  analysis: {metrics: [{name: errors, errorRate: {max: 0.02}}]}\n"
#: Nobody listens there, and nobody may.
NOWHERE = "http://127.0.0.1:1"
BOTH = ("--candidate", "abc", "--stable", "abd")


def replay(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["replay", *arguments])


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "fraud.yaml"
    path.write_text(SPEC + ANALYSIS)
    return str(path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--prometheus", NOWHERE], "with -f give --candidate and --stable"),
        (["--prometheus", NOWHERE, "fraud", *BOTH], "the NAME of a ModelDeployment or -f FILE"),
        (["--prometheus", "prometheus:9090", *BOTH], "url: must be an address such as http://"),
        (["--prometheus", "http://u:p@x", *BOTH], "must not hold credentials"),
        (["--prometheus", NOWHERE, "--username", "u", *BOTH], "basicAuth"),
        (["--prometheus", NOWHERE, "--start", "yesterday", *BOTH], "is neither a time such as"),
        (["--prometheus", NOWHERE, "--end", "2999-01-01T00:00:00Z", *BOTH], "in the future"),
        (["--prometheus", NOWHERE, "--start", "1m", "--end", "2m", *BOTH], "before --end"),
        (["--prometheus", NOWHERE, "--tick", "10ms", *BOTH], "--tick must be at least 1s"),
        (["--prometheus", NOWHERE, "--start", "1000h", "--tick", "1s", *BOTH], "are the limit"),
        (["--prometheus", NOWHERE, "--weights", "5", *BOTH], "--weights: write 5=10m,25=20m"),
        (["--prometheus", NOWHERE, "--weights", "500=1m", *BOTH], "500 is not a percentage"),
    ],
)
def test_what_cannot_be_replayed_is_said_before_anything_is_asked(
    file: str, more: list[str], says: str
) -> None:
    found = replay("-f", file, *more)
    assert found.exit_code == 2, found.output
    assert says in " ".join(found.output.split())


@pytest.mark.parametrize(
    ("analysis", "says"),
    [
        ("", "spec.analysis is not set, so there is nothing to judge by"),
        ("  analysis: {metrics: [{name: p, prometheus: {query: 'up(', min: 1}}]}\n",
         "metric p: unclosed left parenthesis, at '(' (at character 3)"),
        ("  analysis: {metrics: [{name: p, latency: {max: 2000s}}]}\n", "largest bucket"),
        ("  analysis: {metrics: [{name: p, predictionShift: {maxPSI: 0.2}}]}\n",
         "nobody counts the predictions"),
        ("  analysis: {alpha: 7}\n", "spec.analysis.alpha: must lie between 0 and 0.5"),
    ],
)  # fmt: skip
def test_a_spec_by_which_nothing_can_be_judged_is_refused(
    tmp_path: Path, analysis: str, says: str
) -> None:
    path = tmp_path / "fraud.yaml"
    path.write_text(SPEC + analysis)
    found = replay("-f", str(path), "--prometheus", NOWHERE, *BOTH)
    assert found.exit_code == 2
    assert says in " ".join(found.output.split())


def test_a_prometheus_that_is_not_there_ends_with_5(file: str) -> None:
    found = replay("-f", file, "--prometheus", NOWHERE, *BOTH)
    assert found.exit_code == 5, found.output
    assert found.output == "Error: Nobody listens at --prometheus: connection refused.\n"


def test_the_revisions_are_those_of_the_status_and_the_start_is_the_candidate_s(
    api: FakeApi, mooring: Mooring
) -> None:
    api.put(objects.DEPLOYMENTS, {**objects.judged(), "spec": with_steps()})
    assert mooring("replay", "fraud", "--prometheus", NOWHERE).exit_code == 5


def test_where_nothing_rolls_out_the_revisions_must_be_named(
    api: FakeApi, mooring: Mooring
) -> None:
    api.put(objects.DEPLOYMENTS, {**objects.judged(objects.serving()), "spec": with_steps()})
    found = mooring("replay", "fraud", "--prometheus", NOWHERE)
    assert found.exit_code == 2
    assert "mooring history fraud lists them" in found.output
    more = ("--candidate", "3", "--stable", objects.STABLE[:4])
    assert mooring("replay", "fraud", "--prometheus", NOWHERE, *more).exit_code == 5


def with_steps() -> dict[str, object]:
    spec: dict[str, object] = objects.judged()["spec"]
    return {**spec, "rollout": {"steps": [{"weight": 10, "duration": "10m"}]}}


def test_a_time_may_be_how_long_ago_it_was() -> None:
    tick, hour = timedelta(seconds=10), timedelta(hours=1)
    found = period(None, 2 * hour, hour, tick, "5=10m,25=20m")

    assert found.ended - found.began == hour
    assert found.looks == 361
    assert found.weights == ((5.0, 600.0), (25.0, 1200.0))


def test_without_a_start_it_is_the_candidate_s_unless_that_is_later() -> None:
    now = datetime.now(UTC)
    tick, hour = timedelta(seconds=10), timedelta(hours=1)

    assert period(now - 3 * hour, None, None, tick, None).began == now - 3 * hour
    ended = now - 4 * hour
    assert period(now - 3 * hour, None, ended, tick, None).began == ended - hour
