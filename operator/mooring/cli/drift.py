"""``mooring drift``: how the data stands, feature by feature, beside the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.options import cluster_options, name_argument, no_color_option, output_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from mooring.cli.cluster import Target
    from mooring.cli.drift_picture import FeaturePicture, Picture

_SHOWN = 20
_BARS = " ▁▂▃▄▅▆▇█"
_COLOURS = {"Drifted": "red", "Unhealthy": "yellow", "Steady": "green"}


@click.command()
@name_argument
@click.option("--all", "every", is_flag=True, help=f"All features, not the worst {_SHOWN}.")
@output_option()
@no_color_option
@cluster_options
def drift(name: str, every: bool, output: str, no_color: bool, target: Target) -> None:
    """Show how a ModelDeployment's data stands beside its reference.

    One line per feature, the worst first. EVIDENCE is what has gathered over the windows, as a
    share of what alarms. REFERENCE and NOW are histograms over the bins that are tested; `-o json`
    has their labels and numbers.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.drift_picture import picture
    from mooring.cli.output import console, data

    found = picture(connect(target), name)
    if output != "text":
        click.echo(data(_plain(found), output), nl=False)
        return
    show(found, console(no_color), every=every, now=datetime.now(UTC))


def _plain(found: Picture) -> dict[str, Any]:
    value = asdict(found)
    value["features"] = [
        {key: list(one) if isinstance(one, tuple) else one for key, one in feature.items()}
        for feature in value["features"]
    ]
    value["conditions"] = list(found.conditions.values())
    value["past"] = [
        {"end": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "rows": int(rows), "state": state}
        for end, rows, state in found.past
    ]
    return value


def show(found: Picture, out: Console, *, every: bool, now: datetime) -> None:
    """The picture for people."""
    from rich.text import Text

    from mooring.cli.words import clock, plain

    state = plain(found.drift.get("state")) or "NoData"
    head = Text.assemble((found.name, "bold"), "  ", (state, _COLOURS.get(state, "")))
    if found.drift.get("windowEnd"):
        head.append(
            f"  {found.drift.get('rows', 0)} rows in the window to "
            f"{clock(found.drift['windowEnd'], now)}"
        )
    out.print(head)
    if found.drift.get("message"):
        out.print(Text(plain(found.drift["message"])))
    healthy = found.conditions.get("DataHealthy") or {}
    if healthy.get("status") == "False":
        out.print(Text(f"Data: {plain(healthy.get('message'))}", "yellow"))
    concept = found.drift.get("concept") or {}
    if concept:
        out.print(_labels(concept))
    if found.past:
        out.print(Text.assemble(("windows  ", "dim"), timeline([s for _, _, s in found.past])))
    if found.note:
        out.print(Text(found.note, "yellow"))
    if found.features:
        out.print()
        shown = found.features if every else found.features[:_SHOWN]
        out.print(_table(shown, out.width))
        left = len(found.features) - len(shown)
        if left:
            out.print(Text(f"and {left} more: --all", "dim"))


def _labels(concept: dict[str, Any]) -> Text:
    """What labels say, as ``status.drift.concept`` has it."""
    from rich.text import Text

    from mooring.cli.words import plain

    state = plain(concept.get("state"))
    found = Text.assemble(("labels   ", "dim"), (state, _COLOURS.get(state, "")))
    if concept.get("threshold") and concept.get("score") is not None:
        found.append(f"  {_percent(concept['score'] / concept['threshold'])} of the evidence")
    # What alarms stands in the message of the whole.
    said = "" if state == "Drifted" else f": {plain(concept.get('message'))}"
    return found.append(f"  {concept.get('labels') or 0} of {plain(concept.get('output'))}{said}")


def timeline(states: Sequence[str]) -> str:
    """A letter per window: . steady, D drifted, U unhealthy, i too few rows, _ no data."""
    letters = {"Steady": ".", "Drifted": "D", "Unhealthy": "U", "InsufficientData": "i"}
    return "".join(letters.get(state, "_") for state in states)


def _table(features: Sequence[FeaturePicture], width: int) -> Any:
    from rich.text import Text

    from mooring.cli.columns import Column, fit
    from mooring.cli.words import plain

    return fit(
        [
            Column("FEATURE", [Text(plain(one.label)) for one in features]),
            Column("STATE", [Text(one.state, _COLOURS.get(one.state, "")) for one in features]),
            Column("PSI", [Text(_digits(one.psi)) for one in features]),
            Column("EVIDENCE", [Text(_percent(one.evidence)) for one in features]),
            Column("ROWS", [Text(str(one.rows)) for one in features], drop=2),
            Column("REFERENCE", [Text(_bars(one.reference, one)) for one in features], drop=1),
            Column("NOW", [Text(_bars(one.current, one)) for one in features], drop=1),
            Column(
                "BESIDES",
                [
                    Text(", ".join(f"{share:.1%} {name}" for name, share in one.odd.items()))
                    for one in features
                ],
                drop=3,
            ),
        ],
        width,
    )


def _bars(shares: Sequence[float], one: FeaturePicture) -> str:
    """One block per bin, on one scale for both sides; what is there at all can be seen."""
    most = max((*one.reference, *one.current), default=0.0)
    if not shares or most <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(_BARS[max(round(s / most * steps), 1) if s > 0 else 0] for s in shares)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
