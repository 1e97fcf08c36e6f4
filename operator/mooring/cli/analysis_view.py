"""The branch of ``mooring get`` that shows the evidence: one leaf for each metric."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from rich.text import Text
from rich.tree import Tree

from mooring.cli.bar import bar
from mooring.cli.estimates import Reading, ongoing, readings, summary, told
from mooring.cli.snapshot import Snapshot
from mooring.cli.words import age, clock, moment, plain, span

VERDICTS = {"Pass": "green", "Fail": "red", "Inconclusive": "yellow", "NoData": "magenta"}
"""The colour of each verdict; an unknown one has none."""

#: Nobody has looked for longer than this: the operator may be gone.
_FRESH = timedelta(seconds=30)


def branches(snapshot: Snapshot, now: datetime) -> Iterator[Tree]:
    """What is judged now, or what decided the last rollout; nothing where nothing ever was."""
    analysis = snapshot.part("analysis")
    if not analysis:
        return
    now_judged = ongoing(snapshot.status)
    branch = Tree(_head(snapshot, now) if now_judged else _past(snapshot, now))
    for text in analysis.get("blocked") or () if now_judged else ():
        branch.add(Text.assemble(("keeps it from passing", "yellow"), f"  {plain(text)}"))
    for reading in readings(snapshot):
        # Of what passed long ago nobody wants to see every number.
        whole = now_judged or reading.verdict != "Pass"
        branch.add(Tree(_metric(reading, now) if whole else _title(reading, now)))
    yield branch


def _head(snapshot: Snapshot, now: datetime) -> Text:
    analysis = snapshot.part("analysis")
    verdict = plain(analysis.get("verdict"))
    text = Text.assemble(
        ("analysis", "cyan"), " ", (summary(snapshot) or "begins", VERDICTS.get(verdict, ""))
    )
    if analysis.get("phase") == "Bake":
        text.append(f"  of {plain(analysis.get('revision'))} in its bake")
    if analysis.get("since"):
        text.append(f"  for {age(analysis['since'], now)}", "dim")
    if analysis.get("scrapeInterval"):
        text.append(f"  a sample every {plain(analysis['scrapeInterval'])}", "dim")
    seen = moment(analysis.get("observedAt"))
    if seen is not None and now - seen > _FRESH:
        text.append(f"  last looked at {span(now - seen)} ago", "magenta")
    why = told(snapshot)
    if why:
        text.append(f"\n{why}")
    return text


def _past(snapshot: Snapshot, now: datetime) -> Text:
    analysis = snapshot.part("analysis")
    verdict = plain(analysis.get("verdict"))
    text = Text.assemble("last analysis ", (verdict, VERDICTS.get(verdict, "")))
    text.append(f"  of {plain(analysis.get('revision'))}")
    if analysis.get("observedAt"):
        text.append(f"  {age(analysis['observedAt'], now)} ago", "dim")
    why = told(snapshot)
    if why and verdict != "Pass":
        text.append(f"\n{why}")
    return text


def _title(reading: Reading, now: datetime) -> Text:
    verdict = reading.verdict
    text = Text.assemble((reading.name, "bold"), " ", (verdict, VERDICTS.get(verdict, "")))
    if reading.record.get("decidedAt"):
        text.append(f" at {clock(reading.record['decidedAt'], now)}", "dim")
    if reading.reason:
        text.append(f": {reading.reason}")
    return text


def _metric(reading: Reading, now: datetime) -> Text:
    text = _title(reading, now)
    if reading.evidence is not None:
        text.append("\nto Fail    ", "dim").append_text(
            bar(reading.evidence, "red" if reading.evidence >= 0.5 else "yellow")
        )
        text.append(f" {100 * reading.evidence:.0f} %")
    for name, shown in reading.sides():
        text.append(f"\n{name:<10} ", "dim").append(shown)
    if reading.bursts:
        text.append("\nbursts     ", "dim").append(reading.bursts)
    if reading.needed:
        text.append("\nneeds      ", "dim").append(reading.needed)
    if not reading.guaranteed and "no guarantee" not in reading.reason:
        text.append("\nno guarantee goes with a query of your own", "dim")
    return text
