"""The program as a whole: what it lists, how it is called, and that it starts fast."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mooring.cli import main
from mooring.engine.lease import LeaseLost

OPERATOR = Path(__file__).parents[2] / "operator"
COMMANDS = main.list_commands(click.Context(main))


def test_help_lists_every_command_without_importing_any() -> None:
    probe = """
import sys
from mooring.cli import main
main(["--help"], standalone_mode=False)
heavy = ("kubernetes", "pydantic", "rich", "yaml", "numpy", "aiohttp", "mooring.api")
print("imported:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={"PYTHONPATH": str(OPERATOR)}, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert [name for name in COMMANDS if f"\n  {name} " not in done.stdout] == []
    assert done.stdout.endswith("imported: []\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str) -> None:
    found = CliRunner().invoke(main, [name, "--help"])
    assert found.exit_code == 0, found.output
    assert found.output.startswith(f"Usage: main {name} ")
    assert "-h, --help" in found.output


@pytest.mark.parametrize(
    "name", ["status", "lint", "promote", "abort", "undo", "restart", "retrain", "export", "crds"]
)
def test_commands_made_for_scripts_document_their_exit_codes(name: str) -> None:
    assert "Exit codes: 0 " in " ".join(CliRunner().invoke(main, [name, "--help"]).output.split())


def test_called_by_kubectl_it_shows_the_name_that_was_typed(tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-mooring"
    plugin.write_text("from mooring.cli import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(plugin), "--help"],
        env={"PYTHONPATH": str(OPERATOR)}, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("Usage: kubectl mooring ")


def test_an_unknown_command_is_wrong_usage() -> None:
    found = CliRunner().invoke(main, ["serve"])
    assert found.exit_code == 2
    assert "No such command 'serve'" in found.output


def test_version_of_the_program_alone_asks_no_cluster() -> None:
    found = CliRunner().invoke(main, ["version", "--client"])
    assert found.exit_code == 0
    assert found.output.startswith("mooring 0.1.0 for mooring.dev/v1alpha1 (Python 3.")


def test_the_page_about_the_plugin_lists_every_command_but_the_operators_own() -> None:
    page = (OPERATOR.parent / "docs" / "plugin.md").read_text().partition("## Looking")[0]
    listed = {name for line in page.splitlines() if line.startswith("    mooring ")
              for name in re.findall(r"[a-z]+", line.partition("      ")[0])}  # fmt: skip
    assert set(COMMANDS) - listed == {"run"}


def test_the_operator_that_has_lost_its_lease_says_so_in_a_sentence_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(*_: object, **__: object) -> None:
        raise LeaseLost("the lease was lost: ending")

    monkeypatch.setattr("mooring.process.run", run)
    found = CliRunner().invoke(main, ["run"])
    assert (found.exit_code, found.output.strip()) == (1, "the lease was lost: ending")
