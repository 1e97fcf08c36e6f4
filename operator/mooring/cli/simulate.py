"""``mooring simulate``: what the judge would do, before anybody lets it.

The traffic is made up, the judging is not: it is the operator's own (``mooring.core.judge``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mooring.cli.failure import Failure
from mooring.cli.options import Duration, no_color_option, output_option
from mooring.cli.progress import progress_bar
from mooring.cli.words import parse_duration

if TYPE_CHECKING:
    from mooring.core.judge.settings import ErrorRate
    from mooring.core.judge.simulation import Scenario, Step

_STEPS = "5=10m,10=10m,25=10m,50=10m"
#: Common error rates are drawn between these parts of the mean, anew every minute.
_SPREAD = (0.2, 1.8)
#: So many looks take a second or two; above, progress is shown.
_SHORT = 500
#: How problems of misspelt fields read.
_UNKNOWN = ": unknown field: "
#: The rules of others as a narrow terminal has room for them.
_SHORT_NAMES = {
    "failureLimit 0": "Argo 0",
    "failureLimit 3": "Argo 3",
    "threshold 5": "Flagger",
    "peeking z-test": "z-test",
}


class _Numbers(click.ParamType[tuple[float, ...]]):
    """Positive numbers with commas; percent signs are understood."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        found = []
        for text in str(value).split(","):
            number = _number(text.strip())
            if number is None or not 0 < number < 1e9:
                self.fail(f"{text!r} is not a positive number", param, ctx)
            found.append(number)
        return tuple(found)


def _number(text: str) -> float | None:
    part = 100.0 if text.endswith("%") else 1.0
    try:
        return float(text.removesuffix("%")) / part
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to play: given by options, or by a file and options over it."""

    steps: tuple[Step, ...]
    rule: ErrorRate
    alpha: float
    part: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f",
    "--filename",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A ModelDeployment: its steps, its alpha and its error rate metric.",
)
@click.option("--steps", metavar="WEIGHT=TIME,...", help=f"Weights in percent. Default: {_STEPS}")
@click.option(
    "--requests",
    type=_Numbers(),
    default="600",
    show_default=True,
    metavar="N,...",
    help="Requests a minute, over both revisions.",
)
@click.option(
    "--error-rate",
    type=_Numbers(),
    default="0.5%",
    show_default=True,
    metavar="RATE",
    help="Mean error rate of stable; every minute has its own, 0.2 to 1.8 times that.",
)
@click.option(
    "--ratios",
    type=_Numbers(),
    default="2,3,5",
    show_default=True,
    metavar="N,...",
    help="Bad candidates: so many times the errors of stable.",
)
@click.option("--max-ratio", type=click.FloatRange(min=0, min_open=True), help="Tolerated ratio.")
@click.option("--max", "objective", type=_Numbers(), help="Objective for the error rate.")
@click.option(
    "--alpha",
    type=click.FloatRange(0, 0.5, min_open=True, max_open=True),
    help="Chance of ever rolling back a good candidate. Default: 0.05",
)
@click.option(
    "--tick", type=Duration(), default="5s", show_default=True, help="Time between two looks."
)
@click.option("--runs", type=click.IntRange(1, 100_000), default=400, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--compare", is_flag=True, help="Play the rules of other tools beside it.")
@click.option(
    "--threshold",
    type=_Numbers(),
    metavar="RATE",
    help="What those take as a failed minute. Default: twice the mean error rate.",
)
@output_option()
@no_color_option
def simulate(
    *,
    filename: Path | None,
    steps: str | None,
    requests: tuple[float, ...],
    error_rate: tuple[float, ...],
    ratios: tuple[float, ...],
    max_ratio: float | None,
    objective: tuple[float, ...] | None,
    alpha: float | None,
    tick: timedelta,
    runs: int,
    seed: int,
    compare: bool,
    threshold: tuple[float, ...] | None,
    output: str,
    no_color: bool,
) -> None:
    """Say how often a good candidate would be rolled back, and how soon a bad one caught.

    Plays seeded rollouts through the operator's own judge, so that steps and alpha can be chosen
    before they are used. Errors are judged; latency and free queries are not. Steps that do not
    split traffic (mirror, match, pause, replicas) are left out, and so is the bake phase.

    Exit codes: 0 printed; 1 the file cannot be used; 2 wrong usage.
    """
    mean = error_rate[0]
    if len(error_rate) > 1 or mean * _SPREAD[1] > 1:
        raise click.UsageError("--error-rate takes one rate below 55 %")
    if tick.total_seconds() < 1:
        raise click.UsageError("--tick must be at least 1s")
    asked = _asked(filename, steps, max_ratio, objective, alpha)
    if tick.total_seconds() > min(step.seconds for step in asked.steps):
        raise click.UsageError("--tick must not be longer than the shortest step")
    limit = (threshold[0] if threshold else 2 * mean) if compare else None
    result = _play(asked, requests, mean, ratios, tick, runs, seed, limit)
    from mooring.cli.output import data

    if output != "text":
        click.echo(data(result, output), nl=False)
    else:
        _print(result, no_color)


def _asked(
    filename: Path | None,
    steps: str | None,
    max_ratio: float | None,
    objective: tuple[float, ...] | None,
    alpha: float | None,
) -> _Asked:
    from mooring.core.judge.settings import Analysis, ErrorRate, Metric, problems

    spec = _spec(filename) if filename else {}
    analysis = _mapping(spec.get("analysis"))
    metrics = [_mapping(m) for m in analysis.get("metrics") or [] if isinstance(m, dict)]
    given = next((_mapping(m["errorRate"]) for m in metrics if "errorRate" in m), {})
    if filename and metrics and not given:
        raise Failure(f"{filename} has no errorRate metric, and only that can be simulated")
    ratio = max_ratio if max_ratio is not None else _real(given.get("maxRatio"))
    bound = objective[0] if objective else _real(given.get("max"))
    rule = ErrorRate(
        1.0 if ratio is None and bound is None else ratio,
        bound,
        _real(given.get("passRatio")),
        _real(given.get("passFloor")),
    )
    risk = alpha if alpha is not None else _real(analysis.get("alpha")) or 0.05
    wrong = problems(Analysis((Metric("errors", rule),), alpha=risk))
    if wrong:
        by_options = (max_ratio, objective, alpha) != (None, None, None)
        place = f"{filename}: " if filename and not by_options else ""
        raise Failure(place + "; ".join(wrong))
    guaranteed = sum("prometheus" not in metric for metric in metrics)
    written = _steps(filename, steps, spec)
    if filename and not metrics:
        click.echo(
            f"{filename} has no spec.analysis: its rollout is judged by nothing. What follows is "
            "as if it had an errorRate metric.",
            err=True,
        )
    return _Asked(written, rule, risk, risk / max(guaranteed, 1))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _real(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good else None


def _spec(filename: Path) -> dict[str, Any]:
    from mooring.cli.documents import BadYaml, read_documents

    try:
        documents = list(read_documents(filename.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, BadYaml) as error:
        raise Failure(f"{filename} cannot be read: {error}") from error
    found = [_mapping(document.value) for document in documents]
    found = [value for value in found if value.get("kind") == "ModelDeployment"]
    if len(found) != 1:
        raise Failure(f"{filename} must hold one ModelDeployment, and holds {len(found)}")
    misspelt = [problem for problem in _problems(found[0]) if _UNKNOWN in problem]
    if misspelt:
        raise Failure(f"{filename}: {misspelt[0]}")
    return _mapping(found[0].get("spec"))


def _problems(resource: dict[str, Any]) -> tuple[str, ...]:
    """What is wrong with what is played; the rest of a file may be unfinished."""
    from mooring.api import InvalidResource, parse_model_deployment

    try:
        parse_model_deployment(resource, strict=True)
    except InvalidResource as error:
        played = ("spec.rollout", "spec.analysis")
        return tuple(problem for problem in error.problems if problem.startswith(played))
    return ()


def _steps(filename: Path | None, steps: str | None, spec: dict[str, Any]) -> tuple[Step, ...]:
    """The steps to play. Options are how the program is used (2); what a file says is not (1)."""
    if filename is None or steps:
        try:
            return _rising(_steps_of_text(steps or _STEPS))
        except ValueError as error:
            raise click.UsageError(f"--steps: {error}") from error
    try:
        found = _rising(_steps_of_spec(spec))
    except ValueError as error:
        raise Failure(f"{filename}: {error}") from error
    if not found:
        raise Failure(f"{filename} has no step with a weight and a duration: give --steps")
    return found


def _rising(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if any(later.weight <= former.weight for former, later in pairwise(steps)):
        raise ValueError("the weights must rise from step to step, as in a rollout")
    return steps


def _steps_of_spec(spec: dict[str, Any]) -> tuple[Step, ...]:
    """The file's steps that split traffic for a time. Raises ValueError for those that cannot."""
    from mooring.core.judge.simulation import Step

    steps = _mapping(spec.get("rollout")).get("steps")
    found = []
    for at, raw in enumerate(steps if isinstance(steps, list) else ()):
        weight, lasts = _mapping(raw).get("weight"), _mapping(raw).get("duration")
        if weight is None or not lasts:
            continue
        place, percent = f"spec.rollout.steps[{at}]", _real(weight)
        if percent is None or not 0 < percent <= 100:
            raise ValueError(f"{place}.weight: {weight!r} is no percentage from 1 to 100")
        try:
            found.append(Step(percent, _seconds(str(lasts))))
        except ValueError as error:
            raise ValueError(f"{place}.duration: {error}") from error
    return tuple(found)


def _steps_of_text(text: str) -> tuple[Step, ...]:
    """The steps of --steps. Raises ValueError."""
    from mooring.core.judge.simulation import Step

    found = []
    for part in text.split(","):
        weight, _, lasts = part.partition("=")
        number = _number(weight.strip().removesuffix("%"))
        if number is None or not 0 < number <= 100:
            raise ValueError(f"write WEIGHT=TIME such as 10=5m, not {part!r}")
        found.append(Step(number, _seconds(lasts.strip())))
    return tuple(found)


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if seconds < 1:
        raise ValueError(f"{text!r}: a step must last at least 1s")
    return seconds


def _play(
    asked: _Asked,
    requests: tuple[float, ...],
    mean: float,
    ratios: tuple[float, ...],
    tick: timedelta,
    runs: int,
    seed: int,
    limit: float | None,
) -> dict[str, Any]:
    """The whole answer as data: what was played, and a row for each traffic and candidate."""
    from mooring.core.judge.simulation import Scenario

    rows = []
    looks = sum(step.seconds for step in asked.steps) / tick.total_seconds()
    candidates = (1.0, *(ratio for ratio in ratios if ratio != 1.0))
    total = len(candidates) * len(requests)
    with progress_bar("Playing rollouts", looks * total > _SHORT) as shown:
        for number, rate in enumerate(requests):
            scenario = Scenario(
                asked.steps, rate, (_SPREAD[0] * mean, _SPREAD[1] * mean), asked.rule, asked.part,
                tick.total_seconds(), runs, seed,
            )  # fmt: skip
            for at, ratio in enumerate(candidates):
                before = number * len(candidates) + at
                rows.append(_row(scenario, ratio, limit, _part(shown, before, total)))
    return {
        "alpha": asked.alpha,
        "alphaOfErrors": asked.part,
        "maxRatio": asked.rule.max_ratio,
        "max": asked.rule.max,
        "errorRate": mean,
        "tickSeconds": tick.total_seconds(),
        "runs": runs,
        "seed": seed,
        "steps": [{"weight": s.weight, "seconds": s.seconds} for s in asked.steps],
        "rows": rows,
    }


def _part(shown: Callable[[float], None], before: int, total: int) -> Callable[[float], None]:
    """Progress of one of ``total`` plays, told as that of all."""
    return lambda part: shown((before + part) / total)


def _row(
    scenario: Scenario, ratio: float, limit: float | None, progress: Callable[[float], None]
) -> dict[str, Any]:
    from mooring.core.judge.simulation import NEVER
    from mooring.core.judge.simulation import simulate as play

    found = play(scenario, ratio, limit=limit, progress=progress)
    row: dict[str, Any] = {
        "requestsPerMinute": scenario.requests,
        "ratio": ratio,
        "rolledBack": found.caught,
        "medianSeconds": found.median(),
        "passed": float((found.passed != NEVER).mean()),
        "promoted": float(found.promoted.mean()),
    }
    if found.others:
        row["others"] = {
            name: {
                "rolledBack": float((times != NEVER).mean()),
                "medianSeconds": found.median(times),
            }
            for name, times in found.others.items()
        }
    return row


def _print(result: dict[str, Any], no_color: bool) -> None:
    from rich.table import Table

    from mooring.cli.output import console

    out = console(no_color)
    total = sum(step["seconds"] for step in result["steps"])
    steps = ", ".join(f"{s['weight']:g} % for {_time(s['seconds'])}" for s in result["steps"])
    out.print(f"Steps: {steps} ({_time(total)} in all)")
    limits = [f"{result['maxRatio']:g} times stable"] if result["maxRatio"] is not None else []
    limits += [f"{result['max']:.3g}"] if result["max"] is not None else []
    out.print(
        f"Tolerated: errors {' and '.join(limits)}; stable fails {result['errorRate']:.3g} of its "
        f"requests; {result['runs']} runs each, a look every {result['tickSeconds']:g} s"
    )
    others = list(result["rows"][0].get("others", {}))
    padding = (0, 1, 0, 0) if others else (0, 1)
    table = Table(box=None, pad_edge=False, padding=padding, header_style="bold")
    for title in ("req/min", "candidate", "rolled back", "after", "promoted"):
        # Headers may fold, numbers may not.
        least = max(len(word) for word in title.split())
        side: Literal["left", "right"] = "left" if title == "candidate" else "right"
        table.add_column(title, justify=side, min_width=11 if side == "left" else max(least, 5))
    for name in others:
        table.add_column(_SHORT_NAMES.get(name, name), justify="right", style="dim", min_width=6)
    for row in result["rows"]:
        good = row["ratio"] <= (result["maxRatio"] or 1.0)
        after = "-" if row["medianSeconds"] is None else _time(row["medianSeconds"])
        cells = [f"{row['rolledBack']:.1%}", after, f"{row['promoted']:.1%}"]
        cells += [f"{row['others'][name]['rolledBack']:.1%}" for name in others]
        name = "good" if row["ratio"] == 1.0 else f"{row['ratio']:g}× errors"
        table.add_row(
            f"{row['requestsPerMinute']:g}", name, *cells, style="green" if good else None
        )
    out.print(table)
    if others:
        out.print(
            "Beside it, the rules of others: Argo Rollouts with failureLimit 0 and 3 and Flagger "
            "with threshold 5 on the error rate of each minute, a z-test looked at every minute."
        )
    out.print(
        f"By design, errors roll a good candidate back at most {result['alphaOfErrors']:.2g} of "
        "the time, however often one looks. After: the median. Promoted: it passes when the last "
        "step ends."
    )


def _time(seconds: float) -> str:
    """Seconds as people say them: 45s, 12m, 1h30m."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "m"), (left, "s")]
    return "".join(f"{n}{unit}" for n, unit in parts if n) or "0s"
