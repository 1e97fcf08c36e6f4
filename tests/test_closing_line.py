"""The closing line of `make test`: it sums the tiers, and never makes a failure vanish."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "dev" / "count_results.py"


@pytest.fixture(scope="module")
def counter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_results", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_report(directory: Path, tier: str, *cases: str) -> None:
    body = "".join(cases)
    (directory / f"{tier}.xml").write_text(
        f"<testsuites><testsuite>{body}</testsuite></testsuites>"
    )


def case(name: str, outcome: str = "") -> str:
    return f'<testcase classname="t" name="{name}">{outcome}</testcase>'


def test_tiers_are_summed_and_the_last_line_is_the_sum(
    counter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(tmp_path, "unit", case("a"), case("b"), case("c", "<skipped/>"))
    write_report(tmp_path, "e2e", case("a"))
    assert counter.main([str(tmp_path), "unit", "e2e"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 passed, 0 failed, 1 skipped"


@pytest.mark.parametrize("outcome", ["<failure/>", "<error/>"])
def test_a_failure_or_a_broken_fixture_fails_the_run(
    counter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], outcome: str
) -> None:
    write_report(tmp_path, "unit", case("a"), case("b", outcome))
    assert counter.main([str(tmp_path), "unit"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def test_a_test_that_fails_in_its_body_and_its_tear_down_counts_once(
    counter: ModuleType, tmp_path: Path
) -> None:
    write_report(tmp_path, "unit", case("a", "<failure/>"), case("a", "<error/>"))
    assert counter.read_counts(tmp_path / "unit.xml") == counter.Counts(failed=1)


def test_a_tier_that_left_no_result_is_a_failure(counter: ModuleType, tmp_path: Path) -> None:
    write_report(tmp_path, "unit", case("a"))
    assert counter.main([str(tmp_path), "unit", "e2e"]) == 1


def test_a_run_that_tested_nothing_is_a_failure(counter: ModuleType, tmp_path: Path) -> None:
    write_report(tmp_path, "unit")
    assert counter.main([str(tmp_path), "unit"]) == 1
