"""Runs all cases by all tools, prints one table and writes bench/results/drift.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.drift.cases import Case, cases
from bench.drift.environments import PEERS, NotInstalled, ensure
from bench.drift.ours import judge, many_features

RESULTS = Path(__file__).parents[1] / "results" / "drift.json"
JUDGE = Path(__file__).parent / "judge_peer.py"
OURS = "mooring"
MANY = "10,000 features x 30 bins, given counts, seconds"
QUESTIONS = ("false alarms", "power", "season", "season power", "speed")
console = Console(highlight=False)


@click.command()
@click.option("--only", help="Cases whose name or question contains this.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(PEERS),
    help="Ask these alone; what OUTPUT has of the others on the same rows is kept.",
)
@click.option(
    "--missing", is_flag=True, help="Leave out what OUTPUT has of all of these peers already."
)
@click.option("--without-peers", is_flag=True, help="Judge with this project alone.")
@click.option("--timeout", default=420.0, show_default=True, help="Seconds for each peer.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(
    only: str | None,
    peers: tuple[str, ...],
    missing: bool,
    without_peers: bool,
    timeout: float,
    output: Path,
) -> None:
    """False alarms, power, season and speed, on the same rows for every tool."""
    tools: dict[str, str] = {OURS: version("mooring-operator")}
    rows: dict[str, dict[str, Any]] = {}
    earlier = json.loads(output.read_text()) if output.exists() else None
    known = earlier["cases"] if earlier and missing else {}
    with tempfile.TemporaryDirectory(prefix="mooring-bench-drift-") as temporary:
        folder = Path(temporary)
        for place, case in enumerate(cases()):
            if only and only not in case.name and only not in case.question:
                continue
            if all(peer in known.get(case.name, ()) for peer in peers or PEERS):
                continue
            _write(folder / f"{place:02}.npz", case)
            found = judge(case)
            rows[case.name] = {
                "question": case.question,
                OURS: {
                    "window": _share(found.alarms),
                    "day": float(np.mean(found.day)),
                    "seconds": round(found.seconds + found.counting, 4),
                    "seconds given counts": round(found.seconds, 4),
                },
            }
        if earlier and (peers or without_peers):
            _keep(earlier, tools, rows)
        for peer in () if without_peers else peers or PEERS:
            answer = _ask(peer, folder, timeout)
            if answer is None:
                continue
            tools[peer] = answer["version"]
            for name, one in answer["cases"].items():
                rows[name][peer] = _summed(one)
    # On a shared machine the least of all runs is what the work itself takes.
    speed = min(many_features(), earlier[MANY] if earlier else float("inf"))
    found_all = {
        "measured": _machine(),
        "tools": tools,
        MANY: round(speed, 4),
        "cases": dict(sorted(rows.items(), key=lambda row: QUESTIONS.index(row[1]["question"]))),
    }
    _show(found_all)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found_all, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, case: Case) -> None:
    np.savez(
        path, name=np.array(case.name), reference=case.reference, windows=case.windows,
        categorical=np.array(case.categorical), question=np.array(case.question),
    )  # fmt: skip


def _keep(earlier: dict[str, Any], tools: dict[str, str], rows: dict[str, dict[str, Any]]) -> None:
    """Takes over what an earlier run has of the peers, and of cases that this one leaves out."""
    tools |= {tool: release for tool, release in earlier["tools"].items() if tool != OURS}
    for name, row in rows.items():
        before = earlier["cases"].get(name, {})
        row |= {tool: one for tool, one in before.items() if tool in PEERS}
    rows |= {name: row for name, row in earlier["cases"].items() if name not in rows}


def _ask(peer: str, folder: Path, timeout: float) -> dict[str, Any] | None:
    """A peer's answer to the cases that it finished, or None with the reason printed."""
    answer = folder / f"{peer}.json"
    try:
        python = ensure(peer)
        # One thread each: the machine has few cores, and all are compared by the same.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        subprocess.run(
            [str(python), str(JUDGE), peer, str(folder)],
            check=True, timeout=timeout, env={**os.environ, **threads, "PYTHONPATH": ""},
        )  # fmt: skip
    except NotInstalled as error:
        console.print(f"[yellow]{peer} is left out: {error}")
        return None
    except subprocess.SubprocessError as error:
        console.print(f"[yellow]{peer} did not finish: {type(error).__name__}")
        if not answer.exists():
            return None
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def _summed(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        return answer
    alarms = np.array(answer["alarms"])
    return {
        "window": _share(answer["alarms"]),
        "day": round(float(alarms.any(axis=0).mean()), 4),
        "judged": int(alarms.size),
        "seconds": round(answer["seconds"], 4),
    }


def _share(alarms: Sequence[Sequence[bool]]) -> float:
    return round(float(np.array(alarms).mean()), 4)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {libraries}"
    )


def _show(found: dict[str, Any]) -> None:
    tools = found["tools"]
    table = Table(
        title=f"Share of alarms per window | within a day of windows\n{found['measured']}"
    )
    table.add_column("case")
    for tool, release in tools.items():
        table.add_column(f"{tool} {release}", justify="right")
    last = None
    for name, row in found["cases"].items():
        if row["question"] != last:
            last = row["question"]
            table.add_section()
            table.add_row(f"[bold]{last}")
        cells = []
        for tool in tools:
            one = row.get(tool, {})
            if "window" not in one:
                cells.append("failed" if "error" in one else "")
            elif last == "speed":
                cells.append(f"{one['seconds']:.3g} s")
            else:
                cells.append(f"{one['window']:.3f} | {one['day']:.2f}")
        table.add_row(name, *cells)
    console.print(table)
    speed = found[MANY]
    console.print(f"10,000 features × 30 bins, given counts: {speed * 1000:.0f} ms")


if __name__ == "__main__":
    main()
