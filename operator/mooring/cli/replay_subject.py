"""What ``mooring replay`` judges: a spec, two revisions, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.failure import USAGE, Failure
from mooring.cli.words import moment, parse_duration

if TYPE_CHECKING:
    from mooring.api import ModelDeployment
    from mooring.cli.cluster import Target
    from mooring.core.analysis import Standard
    from mooring.core.router_counters import ScrapeLabels

#: Looks of one replay: a week of them every 15 s.
_MOST_LOOKS = 50_000
_BEFORE = timedelta(hours=1)


class When(click.ParamType[datetime | timedelta]):
    """A time, or how long ago it was."""

    name = "when"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        if isinstance(value, datetime | timedelta):
            return value
        found = moment(value)
        if found is not None:
            return found
        try:
            return parse_duration(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is neither a time such as 2026-11-21T14:00:00Z nor how long ago, "
                "such as 90m",
                param,
                ctx,
            )


@dataclass(frozen=True, slots=True)
class Asked:
    """The resource, its namespace, two revisions, and since when the first is judged (or None)."""

    resource: ModelDeployment
    namespace: str
    candidate: str
    stable: str
    since: datetime | None = None
    bake: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """From the first look to the last. ``weights``: (percent, seconds) one after the other."""

    began: datetime
    ended: datetime
    tick: timedelta
    weights: tuple[tuple[float, float], ...] = ()

    @property
    def looks(self) -> int:
        return int((self.ended - self.began) / self.tick) + 1


def from_cluster(target: Target, name: str, candidate: str | None, stable: str | None) -> Asked:
    """The spec of the cluster, and the revisions that its status, or else the user, names."""
    from mooring.api import InvalidResource, parse_model_deployment
    from mooring.cli.cluster import connect
    from mooring.cli.records import choose, read_records
    from mooring.core import kinds

    cluster = connect(target)
    raw = cluster.get(kinds.MODEL_DEPLOYMENT, name)
    try:
        resource = parse_model_deployment(raw)
    except InvalidResource as error:
        raise Failure(f"the spec of {name} cannot be used: {error}", USAGE) from error
    status = raw.get("status") or {}
    judged, against, since, bake = _under_judgement(status)
    if candidate is not None or stable is not None:
        records = read_records(cluster, name)
        judged = choose(records, candidate, name).revision if candidate else judged
        against = choose(records, stable, name).revision if stable else against
        since, bake = None, False
    if not judged or not against:
        raise Failure(
            f"nothing of {name} is rolling out or baking: name two revisions by --candidate and "
            f"--stable; mooring history {name} lists them",
            USAGE,
        )
    return Asked(resource, str(raw["metadata"]["namespace"]), judged, against, since, bake)


def _under_judgement(status: dict[str, Any]) -> tuple[str, str, datetime | None, bool]:
    """Candidate against stable; in the bake what was promoted against the previous revision."""
    stable = status.get("stable") or {}
    for judged, against, bake in (
        (status.get("candidate") or {}, stable, False),
        (stable, status.get("previous") or {}, True),
    ):
        if judged.get("revision") and against.get("revision"):
            began = moment(judged.get("since"))
            return str(judged["revision"]), str(against["revision"]), began, bake
    return "", "", None, False


def from_file(
    filename: Path | None, target: Target, candidate: str | None, stable: str | None
) -> Asked:
    """The spec of a file; a file knows no revisions."""
    from mooring.api import InvalidResource, parse_model_deployment
    from mooring.cli.documents import BadYaml, read_documents

    if filename is None or not candidate or not stable:
        raise click.UsageError("with -f give --candidate and --stable: a file knows no revisions")
    try:
        values = [one.value for one in read_documents(filename.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError, BadYaml) as error:
        raise Failure(f"{filename} cannot be read: {error}", USAGE) from error
    found = [v for v in values if isinstance(v, dict) and v.get("kind") == "ModelDeployment"]
    if len(found) != 1:
        raise Failure(f"{filename} must hold one ModelDeployment, and holds {len(found)}", USAGE)
    try:
        resource = parse_model_deployment(found[0], strict=True)
    except InvalidResource as error:
        raise Failure(f"{filename}: {error}", USAGE) from error
    namespace = target.namespace or resource.metadata.namespace or "default"
    return Asked(resource, namespace, candidate, stable, None)


def period(
    since: datetime | None,
    start: datetime | timedelta | None,
    end: datetime | timedelta | None,
    tick: timedelta,
    weights: str | None,
) -> Period:
    """Fills in what was not given; raises UsageError for what cannot be."""
    now = datetime.now(UTC)
    ended = now - end if isinstance(end, timedelta) else end or now
    default = since if since is not None and since < ended else ended - _BEFORE
    began = now - start if isinstance(start, timedelta) else start or default
    if ended > now:
        raise click.UsageError("--end lies in the future")
    if began >= ended:
        raise click.UsageError("--start must lie before --end")
    if tick < timedelta(seconds=1):
        raise click.UsageError("--tick must be at least 1s")
    looks = (ended - began) / tick
    if looks > _MOST_LOOKS:
        raise click.UsageError(
            f"that is {looks:,.0f} looks, and {_MOST_LOOKS:,} are the limit: take a later --start "
            "or a longer --tick"
        )
    return Period(began, ended, tick, _weights(weights) if weights else ())


def _weights(text: str) -> tuple[tuple[float, float], ...]:
    found = []
    for part in text.split(","):
        weight, _, lasts = part.partition("=")
        try:
            percent, seconds = float(weight), parse_duration(lasts.strip()).total_seconds()
        except ValueError as error:
            raise click.UsageError(f"--weights: write 5=10m,25=20m, not {part!r}") from error
        if not 0 <= percent <= 100:
            raise click.UsageError(f"--weights: {weight} is not a percentage")
        found.append((percent, seconds))
    return tuple(found)


def standard_of(asked: Asked, tick: timedelta, labels: ScrapeLabels) -> Standard:
    """What the candidate is held to; raises Failure where there is nothing to judge by."""
    from mooring.core.analysis import standard
    from mooring.core.observed import RenderSettings

    settings = RenderSettings(
        prometheus=True,
        analysis_interval=tick,
        scrape_namespace_label=labels.namespace,
        scrape_pod_label=labels.pod,
    )
    found = standard(
        asked.resource.spec, settings,
        namespace=asked.namespace, name=asked.resource.metadata.name, revision=asked.candidate,
    )  # fmt: skip
    if found is None:
        raise Failure("spec.analysis is not set, so there is nothing to judge by", USAGE)
    wrong = [gap.message for gap in found.gaps if gap.reason != "NotMeasured"]
    if wrong or not found.analysis.metrics:
        raise Failure("; ".join(wrong or [gap.message for gap in found.gaps]), USAGE)
    return found
