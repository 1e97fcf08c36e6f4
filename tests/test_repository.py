"""The rules of the repository that no linter knows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON_PATH = [
    "operator",
    "dev",
    "components/onnx-server",
    "components/fetcher",
    "components/collector",
]
# Generated, or a list of data: their length says nothing about how they read.
LENGTH_LIMIT = 500
TEXT_SUFFIXES = {
    "", ".cfg", ".in", ".json", ".md", ".mod", ".py", ".sh", ".sum", ".toml", ".tpl", ".txt",
    ".yaml", ".yml",
}  # fmt: skip


def tracked_files() -> list[Path]:
    """Files under version control, and those about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the checkout's parts on its path and nothing else of ours."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(str(ROOT / part) for part in PYTHON_PATH),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_operator_folder_is_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not [p for p in (ROOT / "tests").rglob("operator") if p.is_dir()]


def test_standard_library_operator_stays_importable_with_our_path(tmp_path: Path) -> None:
    for folder in (ROOT, tmp_path):
        done = run_python("-c", "import operator; print(operator.itemgetter(0)('ok'))", cwd=folder)
        assert (done.returncode, done.stdout.strip()) == (0, "o"), done.stderr


def test_operator_starts_as_a_module() -> None:
    done = run_python("-m", "mooring", "--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


@pytest.mark.parametrize("package", ["mooring.core", "mooring.api"])
def test_core_and_api_load_no_client_and_no_heavy_statistics(package: str) -> None:
    probe = f"""
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
banned = ("kopf", "aiohttp", "kubernetes", "requests", "httpx", "pandas", "scipy.stats")
print(sorted(set(banned) & set(sys.modules)))
"""
    done = run_python("-c", probe)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_locks_of_node_packages_name_no_index_and_no_sponsors() -> None:
    locks = [p for p in tracked_files() if p.name == "package-lock.json"]
    assert locks
    for lock in locks:
        for name, package in json.loads(lock.read_text())["packages"].items():
            assert not {"resolved", "funding"} & package.keys(), name


def test_lock_files_name_no_index_and_hash_every_pin() -> None:
    locks = [p for p in tracked_files() if re.fullmatch(r"(requirements|dev)\.txt", p.name)]
    assert locks
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, f"{lock.relative_to(ROOT)} names an address"
        pins = re.findall(r"^[A-Za-z0-9._-]+(?:\[[^]]*])?==.*$", text, re.MULTILINE)
        hashed = re.findall(
            r"^[A-Za-z0-9._-]+(?:\[[^]]*])?==[^\n]*\\\n +--hash=sha256:", text, re.MULTILINE
        )
        assert pins, f"{lock.relative_to(ROOT)} pins nothing"
        assert len(pins) == len(hashed), f"{lock.relative_to(ROOT)} has a pin without a hash"


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    # Spelt so that this file does not find itself.
    patterns = [re.escape("/work" + "/"), re.escape("../" + "shared"), re.escape("/root" + "/.")]
    patterns += [re.escape(f"{ROOT}/")]
    found = []
    for path in tracked_files():
        if path.suffix not in TEXT_SUFFIXES or path.stat().st_size > 1_000_000:
            continue
        text = path.read_text(errors="replace")
        found += [
            f"{path.relative_to(ROOT)}: {m[0]}" for p in patterns if (m := re.search(p, text))
        ]
    assert found == []


def test_python_files_stay_short_enough_to_read_top_to_bottom() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in tracked_files()
        if path.suffix == ".py"
    }
    assert {name: n for name, n in lengths.items() if n > LENGTH_LIMIT} == {}


def test_no_file_is_marked_as_unfinished() -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix in {".py", ".yaml", ".tpl"}
        and marks.search(path.read_text(errors="replace"))
    ]
    assert found == []


def test_no_module_is_called_after_nothing() -> None:
    vague = {"utils", "helpers", "common", "manager", "misc"}
    found = [p for p in tracked_files() if p.suffix == ".py" and p.stem in vague]
    assert found == []


def test_help_lists_every_target_that_a_person_calls() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    listed = set(re.findall(r"^  make ([a-z0-9-]+) ", done.stdout, re.MULTILINE))
    wanted = {
        "venv", "lint", "test-unit", "test-apiserver", "test-e2e", "test", "test-full", "demo",
        "cluster-up", "cluster-down", "images", "crds", "docs", "clean",
    }  # fmt: skip
    assert wanted <= listed


def test_every_locked_dependency_of_the_operator_states_its_reason() -> None:
    reasons = (ROOT / "docs/design/0001-dependencies.md").read_text()
    lines = (ROOT / "operator/requirements.in").read_text().splitlines()
    names = [re.split(r"[<>=;\[ ]", line)[0] for line in lines if line and line[0].isalpha()]
    assert names
    assert [name for name in names if name.lower() not in reasons.lower()] == []


@pytest.mark.parametrize("tier", ["unit", "apiserver", "e2e", "slow"])
def test_every_marker_belongs_to_a_tier(tier: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"RUN_TIER,{tier}," in makefile
