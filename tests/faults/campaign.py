"""The whole campaign: one fault at each (verb, object, occurrence) of each story, for every class.

    python -m tests.faults.campaign --runs 1000      # goes on where the last one stopped
    python -m tests.faults.campaign --case 'update/lost@apply:Deployment fraud-xyz:1'
    python -m tests.faults.campaign --judge build/faults/….jsonl

Cases are taken in an order that a seed decides, so that any number of them is a fair sample.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import describe
from tests.apiserver.cluster import Api
from tests.faults.history import History
from tests.faults.oracles import judge
from tests.faults.plane import control_plane
from tests.faults.runs import Case, Outcome, Undisturbed, cases, record, try_case
from tests.faults.stories import STORIES

SEED = 20261121
_FOLDER = Path("build/faults")
_RESULT = Path("bench/results/faults.json")


@dataclass(frozen=True)
class Line:
    """One case that was tried, as it stands in the journal."""

    case: str
    struck: bool
    seconds: float
    findings: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when no case has broken an invariant."""
    given = _parser().parse_args(arguments)
    if given.judge:
        with given.judge.open() as lines:
            breaches = judge(History.load(lines).in_order())
        print("\n".join(breaches) or "no invariant is broken")
        return 1 if breaches else 0
    return asyncio.run(_campaign(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="One fault at each place, for every class.")
    parser.add_argument("--case", help="only this one, as a failing run names it")
    parser.add_argument("--judge", type=Path, help="judge a history that was kept")
    parser.add_argument("--runs", type=int, default=1000, help="how many cases in all")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument(
        "--shard", default="1of1", help="such as 2of3: every third, for 3 processes"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="decides the order")
    parser.add_argument("--stories", nargs="*", default=list(STORIES), help="only these")
    parser.add_argument("--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--anew", action="store_true", help="forget what was tried before")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="journal and histories")
    parser.add_argument("--result", type=Path, default=_RESULT, help="where the table goes")
    return parser


async def _campaign(given: argparse.Namespace) -> int:
    given.folder.mkdir(parents=True, exist_ok=True)
    journal = given.folder / f"journal-{given.shard}.jsonl"
    if given.anew:
        journal.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch, control_plane(Path(scratch)) as plane:
        async with Api.connect(plane.kubeconfig) as api:
            if given.case:
                return await _one(api, Path(scratch), Case.parse(given.case), given.folder)
            told: dict[str, Undisturbed] = {}
            todo: list[Case] = []
            for story in given.stories:
                try:
                    told[story] = await record(api, Path(scratch), story)
                except AssertionError as error:
                    print(f"left out, since it breaks without a fault: {error}", flush=True)
                    continue
                todo += cases(story, told[story].places)
                print(f"{story}: {len(told[story].places)} places", flush=True)
            random.Random(given.seed).shuffle(todo)
            number, _, count = given.shard.partition("of")
            todo = todo[int(number) - 1 :: int(count)]
            await _try_all(api, Path(scratch), todo, told, journal, given)
    lines = _read(given.folder)
    _write_table(lines, given.result)
    return 1 if any(line.findings for line in lines) else 0


async def _one(api: Api, scratch: Path, case: Case, folder: Path) -> int:
    outcome = await try_case(api, scratch, case, await record(api, scratch, case.story))
    print("\n".join(outcome.findings) or "no invariant is broken")
    if not outcome.struck:
        print("the fault did not strike: its place was not reached")
    print(f"history: {_keep(folder, case, outcome)}")
    return 1 if outcome.findings else 0


async def _try_all(
    api: Api,
    scratch: Path,
    todo: list[Case],
    told: dict[str, Undisturbed],
    journal: Path,
    given: argparse.Namespace,
) -> None:
    before = {line.case for line in _read(given.folder)}
    end = time.monotonic() + given.seconds
    done = len(before & {str(case) for case in todo})
    for case in todo:
        if done >= given.runs // int(given.shard.partition("of")[2]) or time.monotonic() > end:
            return
        if str(case) in before:
            continue
        started = time.monotonic()
        outcome = await try_case(api, scratch, case, told[case.story])
        seconds = round(time.monotonic() - started, 1)
        line = Line(str(case), outcome.struck, seconds, list(outcome.findings))
        with journal.open("a") as out:
            out.write(json.dumps(asdict(line)) + "\n")
        done += 1
        if given.verbose:
            print(f"{case}: {seconds} s, struck: {outcome.struck}", flush=True)
        if outcome.findings:
            kept = _keep(given.folder, case, outcome)
            print("\n  ".join([f"{case}:", *outcome.findings, case.command, str(kept)]), flush=True)
        elif done % 50 == 0:
            print(f"{done} cases tried", flush=True)


def _keep(folder: Path, case: Case, outcome: Outcome) -> Path:
    name = "".join(c if c.isalnum() or c == "-" else "_" for c in str(case))
    outcome.history.save(folder / f"{name}.jsonl")
    return folder / f"{name}.jsonl"


def _read(folder: Path) -> list[Line]:
    """What has been tried; a case that was tried again counts as it came out last."""
    found: dict[str, Line] = {}
    for journal in sorted(folder.glob("journal-*.jsonl")):
        for text in journal.read_text().splitlines():
            line = Line(**json.loads(text))
            found[line.case] = line
    return list(found.values())


def _write_table(lines: list[Line], path: Path) -> None:
    """A row per class and story: cases that struck, those that did not, and what was found."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        story, _, fault = line.case.partition("/")
        what = fault.partition("@")[0]
        row = rows[what]
        row["runs"] += line.struck
        row["not reached"] += not line.struck
        row["violations"] += bool(line.findings)
        row[f"runs of {story}"] += line.struck
    table = {what: dict(rows[what]) for what in sorted(rows)}
    result = {
        "machine": describe(),
        "kubernetes": "1.34.4, etcd 3.6.4, routers faked",
        "seconds": round(sum(line.seconds for line in lines)),
        "runs": sum(line.struck for line in lines),
        "not reached": sum(not line.struck for line in lines),
        "violations": sum(bool(line.findings) for line in lines),
        "classes": table,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['runs']} runs, {result['violations']} violations: {path}")


if __name__ == "__main__":
    sys.exit(main())
