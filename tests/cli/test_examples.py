"""Every example is what the cluster wants, and is told of where people look for examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from mooring.cli.lint import check

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_resources_have_no_fault(folder: Path) -> None:
    reports = [check(str(path), path.read_text()) for path in sorted(folder.glob("*.yaml"))]

    assert [problem for report in reports for problem in report.problems] == []
    assert sum(report.checked for report in reports) >= 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_is_listed_and_explained(folder: Path) -> None:
    assert f"| [{folder.name}]({folder.name}/) |" in (EXAMPLES / "README.md").read_text()
    assert (folder / "README.md").read_text().startswith("# ")
