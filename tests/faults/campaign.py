"""The whole campaign: one fault at each (verb, object, occurrence) of each story, for every class.

    python -m tests.faults.campaign --runs 1000      # goes on where the last one stopped
    python -m tests.faults.campaign --case 'update/lost@apply:Deployment fraud-xyz:1'
    python -m tests.faults.campaign --judge build/faults/….jsonl

Cases are taken in an order that a seed decides, so that any number of them is a fair sample. What
was tried of another state of the operator or of these tests does not count, and is tried again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.machine import describe
from tests.faults.crew import AT_ONCE, Crew, Line
from tests.faults.history import History
from tests.faults.oracles import judge
from tests.faults.plane import REPOSITORY, control_plane
from tests.faults.processes import ProcessEnded
from tests.faults.runs import Case, Undisturbed, cases
from tests.faults.stories import STORIES

SEED = 20261121
_FOLDER = Path("build/faults")
_RESULT = Path("bench/results/faults.json")
#: What decides how a run comes out.
_CODE = ("operator/mooring/**/*.py", "tests/faults/*.py", "tests/faults/*.yaml",
         "tests/apiserver/cluster.py", "tests/apiserver/pods.py", "crds/*.yaml")  # fmt: skip
_NOT_RUN = "operator/mooring/cli/"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when no case has broken an invariant."""
    given = _parser().parse_args(arguments)
    if given.judge:
        with given.judge.open() as lines:
            breaches = judge(History.load(lines).in_order())
        print("\n".join(breaches) or "no invariant is broken")
        return 1 if breaches else 0
    given.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        control_plane(Path(scratch)) as plane,
        Crew.at_work(plane.kubeconfig, 1 if given.case else given.at_once) as crew,
    ):
        return _one(crew, given) if given.case else _campaign(crew, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="One fault at each place, for every class.")
    parser.add_argument("--case", help="only this one, as a failing run names it")
    parser.add_argument("--times", type=int, default=1, help="how often that one")
    parser.add_argument("--judge", type=Path, help="judge a history that was kept")
    parser.add_argument("--runs", type=int, default=1000, help="how many cases in all")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin none after so long")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="cases at the same time")
    parser.add_argument("--seed", type=int, default=SEED, help="decides the order")
    parser.add_argument("--stories", nargs="*", default=list(STORIES), help="only these")
    parser.add_argument("--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--anew", action="store_true", help="forget what was tried before")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="journal and histories")
    parser.add_argument("--result", type=Path, default=_RESULT, help="where the table goes")
    return parser


def code() -> str:
    """A short hash over all that decides how a run comes out."""
    found = hashlib.sha256()
    for pattern in _CODE:
        for path in sorted(REPOSITORY.glob(pattern)):
            name = str(path.relative_to(REPOSITORY))
            if not name.startswith(_NOT_RUN):
                found.update(name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def _one(crew: Crew, given: argparse.Namespace) -> int:
    case, found = Case.parse(given.case), False
    undisturbed = crew.record(case.story).result()
    for _ in range(given.times):
        line = crew.try_case(case, undisturbed, given.folder).result()
        print("\n".join(line.findings) or f"no invariant is broken ({line.seconds} s)")
        if not line.struck:
            print("the fault did not strike: its place was not reached")
        if line.kept:
            print(f"history: {line.kept}")
        found |= bool(line.findings)
    return 1 if found else 0


def _campaign(crew: Crew, given: argparse.Namespace) -> int:
    journal, now = given.folder / "journal.jsonl", code()
    if given.anew:
        journal.unlink(missing_ok=True)
    began = time.monotonic()
    told = _told(crew, given.stories)
    todo = [case for story in told for case in cases(story, told[story].places)]
    print(f"{len(todo)} cases, {given.at_once} at once, of the code {now}", flush=True)
    random.Random(given.seed).shuffle(todo)
    for line in _try_all(crew, todo, told, _read(journal, now), given):
        with journal.open("a") as out:
            out.write(json.dumps(asdict(replace(line, code=now))) + "\n")
    lines = _read(journal, now)
    _write_table(lines, given.result, now, time.monotonic() - began)
    broken = set(given.stories) - set(told)
    return 1 if broken or any(line.findings for line in lines) else 0


def _told(crew: Crew, stories: list[str]) -> dict[str, Undisturbed]:
    """All stories without a fault; one that breaks by itself is said and left out."""
    told = {}
    recording = {story: crew.record(story) for story in stories}
    for story, future in recording.items():
        try:
            told[story] = future.result()
        except (AssertionError, ProcessEnded) as error:
            print(f"left out, since it breaks without a fault: {error}", flush=True)
        else:
            print(f"{story}: {len(told[story].places)} places", flush=True)
    return told


def _try_all(
    crew: Crew,
    todo: list[Case],
    told: dict[str, Undisturbed],
    before: list[Line],
    given: argparse.Namespace,
) -> Iterator[Line]:
    """Cases as they are done, until enough of them have struck."""
    end = time.monotonic() + given.seconds
    known = {line.case for line in before}
    waiting = iter(case for case in todo if str(case) not in known)
    struck, number = sum(line.struck for line in before), 0
    under_way: dict[Future[Line], Case] = {}
    while True:
        while struck + len(under_way) < given.runs and len(under_way) < given.at_once:
            case = next(waiting, None)
            if case is None or time.monotonic() > end:
                break
            under_way[crew.try_case(case, told[case.story], given.folder)] = case
        if not under_way:
            return
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            case = under_way.pop(future)
            line = _come_out(case, future)
            struck, number = struck + line.struck, number + 1
            if given.verbose:
                print(f"{case}: {line.seconds} s, struck: {line.struck}", flush=True)
            if line.findings:
                said = [f"{case}:", *line.findings, case.command, line.kept]
                print("\n  ".join(said), flush=True)
            elif number % 50 == 0:
                print(f"{struck} runs", flush=True)
            yield line


def _come_out(case: Case, future: Future[Line]) -> Line:
    """How a case came out; one whose process ended under it is a finding as any other."""
    try:
        return future.result()
    except ProcessEnded as error:
        return Line(str(case), struck=True, seconds=0.0, findings=(f"I1: {error}",))


def _read(journal: Path, now: str) -> list[Line]:
    """What has been tried of this code; a case that was tried again counts as it came out last."""
    found: dict[str, Line] = {}
    for text in journal.read_text().splitlines() if journal.exists() else ():
        line = Line(**json.loads(text))
        if line.code == now:
            found[line.case] = line
    return list(found.values())


def _write_table(lines: list[Line], path: Path, now: str, seconds: float) -> None:
    """A row per class, with its runs of each story: cases that struck, those that did not, and
    what was found. Campaigns before this one stay beside it.
    """
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        story, _, fault = line.case.partition("/")
        row = rows[fault.partition("@")[0]]
        row["runs"] += line.struck
        row["not reached"] += not line.struck
        row["violations"] += bool(line.findings)
        row[f"runs of {story}"] += line.struck
    result: dict[str, Any] = {
        "machine": describe(),
        "kubernetes": "1.34.4, etcd 3.6.4, routers faked",
        "code": now,
        "seconds": round(seconds),
        "seconds of all runs": round(sum(line.seconds for line in lines)),
        "runs": sum(line.struck for line in lines),
        "not reached": sum(not line.struck for line in lines),
        "violations": sum(bool(line.findings) for line in lines),
        "classes": {what: dict(sorted(rows[what].items())) for what in sorted(rows)},
    }
    stored = json.loads(path.read_text()) if path.exists() else {}
    result["earlier campaigns"] = stored.get("earlier campaigns", [])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['runs']} runs, {result['violations']} violations: {path}")


if __name__ == "__main__":
    sys.exit(main())
