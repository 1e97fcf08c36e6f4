"""What a decision wants to have measured, and what came of it.

``decide`` cannot ask Prometheus. It says what should be measured of whom (an
:class:`Examination`); somebody else does so at every tick, for all rollouts at once, lets the judge
weigh it (:mod:`mooring.core.tribunal`) and hands the :class:`Evidence` to the next decision.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mooring.core.analysis import Query, Standard
from mooring.core.judge import Analysis, Latency, Pods, Verdict, Weights
from mooring.core.observed import Observed
from mooring.core.pods import PodReport
from mooring.core.render.metadata import child_name
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.render.router.envoy import cluster_name, main_port
from mooring.core.revision import Revision
from mooring.core.router_counters import Target
from mooring.core.routing import Routing, ports
from mooring.core.signals import Group, Signals

if TYPE_CHECKING:
    from mooring.core.judge import Judgement, State

#: Evidence is of now when it is no older than so many ticks.
_FRESH_TICKS = 4
#: What a state may unpack to (bytes): what lies in status may be written by others.
_STATE_BYTES = 1 << 20


class Phase(StrEnum):
    """When a revision is judged."""

    ROLLOUT = "Rollout"
    BAKE = "Bake"


@dataclass(frozen=True, slots=True)
class Examination:
    """One revision under judgement, and all that it takes to measure it.

    ``attempt`` names what the evidence belongs to: a revision, and which of its rollouts.
    ``asked`` is what the decision was made on (generation of the spec, verb): a measurement taken
    for an earlier one is passed over. ``against`` is the revision that it is compared with.
    ``weights.since`` and ``pods.newest`` are seconds on the operator's clock. ``candidate`` and
    ``stable`` are the routers' clusters of both sides; ``groups`` their pods instead, where the
    servers' own counts are read. ``state`` is the evidence so far as status
    holds it; None where there is none.
    """

    attempt: str
    asked: str
    phase: Phase
    revision: str
    against: str
    analysis: Analysis
    weights: Weights
    pods: Pods
    target: Target
    candidate: tuple[str, ...]
    stable: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    queries: tuple[Query, ...] = ()
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one tick has found of an examination.

    ``missing``: which measurement is not there, as a sentence; empty when all are. ``interval``:
    seconds between two scrapes of a router, as far as that is known. ``overdue``: measurements have
    been missing for longer than a beginning explains.
    """

    examination: Examination
    at: datetime
    judgement: Judgement
    missing: str = ""
    interval: float = 0.0
    overdue: bool = False

    def measured(self, now: datetime) -> bool:
        """Whether there are fresh measurements of everything."""
        tick = timedelta(seconds=max(self.examination.analysis.tick, self.interval))
        recent = now - self.at <= _FRESH_TICKS * tick
        return recent and self.judgement.fresh and self.judgement.verdict is not Verdict.NO_DATA


def attempt_of(revision: Revision) -> str:
    """The name of the present attempt to roll this revision out."""
    return f"{revision.hash}/{revision.rollout.attempt if revision.rollout else 0}"


def asked_on(observed: Observed) -> str:
    """What a decision goes by that people write."""
    return f"{observed.generation}:{observed.action or ''}"


def evidence_for(observed: Observed, revision: Revision) -> Evidence | None:
    """The evidence about the present attempt of this revision; None without a valid one.

    A verb or a changed spec wins over what was measured before it.
    """
    found = observed.evidence
    if found is None or found.examination.attempt != attempt_of(revision):
        return None
    return found if found.examination.asked == asked_on(observed) else None


def examine(
    observed: Observed,
    judged: Revision,
    against: Revision,
    held_to: Standard,
    routing: Routing,
    *,
    phase: Phase,
    split: tuple[int, datetime | None],
    available: Mapping[str, int],
    sticky: bool,
) -> Examination:
    """What to measure of ``judged``. ``available``: pods by revision that take requests. ``split``:
    percent of the requests that it gets, and since when.
    """
    weight, since = split
    timed = any(isinstance(m.rule, Latency) for m in held_to.analysis.counted)
    candidate = _clusters(judged, routing)
    stable = _clusters(against, routing)
    ours, theirs = observed.pods.get(judged.hash, ()), observed.pods.get(against.hash, ())
    pods = Pods(
        candidate=available.get(judged.hash, 0),
        stable=available.get(against.hash, 0),
        candidate_restarts=sum(pod.restarts for pod in ours),
        stable_restarts=sum(pod.restarts for pod in theirs),
        newest=_newest((*ours, *theirs)),
    )
    return Examination(
        attempt=attempt_of(judged),
        asked=asked_on(observed),
        phase=phase,
        revision=judged.hash,
        against=against.hash,
        analysis=held_to.analysis,
        weights=Weights(
            candidate=float(weight),
            since=since.timestamp() if since is not None else math.inf,
            random=weight > 0 and since is not None,
            exact=not sticky and weight < 100 and not held_to.signals,
        ),
        pods=pods,
        target=Target(
            namespace=observed.namespace,
            deployment=observed.name,
            clusters=(*candidate, *stable),
            edges=tuple(map(float, LATENCY_EDGES_MS)) if timed else (),
            endpoints=max(available.values(), default=1) + 1,
            models=tuple(child_name(observed.name, r.hash) for r in (judged, against)),
        ),
        candidate=candidate,
        stable=stable,
        groups=_groups(observed, (judged, against)) if held_to.signals else (),
        queries=held_to.queries,
        state=_recorded(observed, attempt_of(judged)),
    )


def _groups(observed: Observed, sides: tuple[Revision, Revision]) -> tuple[Group, ...]:
    """The pods of both sides, with what each server can be asked."""
    return tuple(
        Group(observed.namespace, child_name(observed.name, r.hash), Signals.of(r.rendered.signals))
        for r in sides
    )


def _clusters(revision: Revision, routing: Routing) -> tuple[str, ...]:
    """The clusters with its randomly split traffic: per public port the whole, and its halves.

    All that there are, whichever has the traffic now: so what is counted goes on without a break
    when that changes.
    """
    public = ports(revision)
    main = main_port(public)
    backends = routing.table.backends if routing.table is not None else ()
    parts = next((b.parts for b in backends if b.revision == revision.hash), ("",))
    return tuple(
        cluster_name(revision.hash, part, "" if port.name == main else port.name)
        for port in public
        for part in parts
    )


def _newest(pods: tuple[PodReport, ...]) -> float | None:
    since = [pod.ready_since for pod in pods if pod.ready and pod.ready_since is not None]
    return max(since).timestamp() if since else None


def _recorded(observed: Observed, attempt: str) -> Mapping[str, Any] | None:
    """The judge's memory as the last status has it."""
    text = (observed.status.get("analysis") or {}).get("state")
    found = unpack(text) if isinstance(text, str) else None
    if found is None or found.get("attempt") != attempt:
        return None
    state = found.get("state")
    return state if isinstance(state, dict) else None


def pack(attempt: str, state: State) -> str:
    """The judge's memory as one short text; the same for the same memory."""
    data = json.dumps({"attempt": attempt, "state": state.dump()}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(data.encode(), 9)).decode()


def unpack(text: str) -> Mapping[str, Any] | None:
    """Reads :func:`pack` back; None for anything else."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), _STATE_BYTES)
        found = json.loads(data) if unpacker.eof else None
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
