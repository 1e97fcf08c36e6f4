"""A runtime's own counts, where no router counts: requests, errors and latencies of each pod.

A router pod shows both revisions in one scrape; model pods are scraped one by one, some seconds
apart. A short outage of everybody would then seem to hit one side alone, so nothing is compared by
them: they are evidence about objectives (``max``), for which the candidate's own counts are enough.

Requests and errors are two questions, and a scrape may come or fail between them. Where a pod lacks
a count that it had, or one fell and another did not, its last counts stand: taken as they are, a
pod's whole history would count again, or as errors.

The queries are the runtime's (``spec.signals``, pinned with the revision). Those of one text and
namespace are asked at once for all pods under judgement.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mooring.core.answers import Answer, NoAnswer, incomplete
from mooring.core.endpoint_lives import past_lives
from mooring.core.judge.readings import CONTRADICTION, Counters, Scrape
from mooring.core.promql import MAX_LENGTH, BadQuery, confine
from mooring.core.router_counters import ScrapeLabels

_SELECTOR: Final = re.compile(r"\{\{\s*selector\s*\}\}")
_BY: Final = re.compile(r"\{\{\s*by\s*\}\}")
_POD: Final = re.compile(r"(.+)-[a-z0-9]{1,10}-[a-z0-9]{5}")
_SECONDS: Final = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}


@dataclass(frozen=True, slots=True)
class Signals:
    """What a server can be asked, as templates of PromQL; empty where it cannot. ``unit``: seconds
    of one unit of its latencies.
    """

    requests: str = ""
    errors: str = ""
    buckets: str = ""
    unit: float = 1.0

    @classmethod
    def of(cls, pinned: Mapping[str, Any] | None) -> Signals:
        """From what is pinned with a revision; whatever is no text cannot be asked."""
        data = pinned or {}
        latency = data.get("latency")
        latency = latency if isinstance(latency, Mapping) else {}
        texts = (data.get("requests"), data.get("errors"), latency.get("buckets"))
        requests, errors, buckets = (text if isinstance(text, str) else "" for text in texts)
        return cls(requests, errors, buckets, _SECONDS.get(str(latency.get("unit")), 1.0))

    @property
    def templates(self) -> tuple[str, ...]:
        return tuple(text for text in (self.requests, self.errors, self.buckets) if text)


@dataclass(frozen=True, slots=True)
class Group:
    """The pods of one revision: those of the Deployment of this name."""

    namespace: str
    name: str
    signals: Signals


@dataclass(frozen=True, slots=True)
class Question:
    """One query, and whose pods it tells of."""

    text: str
    template: str
    groups: tuple[Group, ...]


def fill(template: str, namespace: str, names: Iterable[str], labels: ScrapeLabels) -> str:
    """The query for the pods of these Deployments, bound to the namespace. Raises BadQuery."""
    pods = "|".join(f"{name.replace('.', '[.]')}-[a-z0-9]+-[a-z0-9]+" for name in names)
    selector = f'{labels.namespace}="{namespace}",{labels.pod}=~"{pods}"'
    text = _BY.sub(labels.pod, _SELECTOR.sub(lambda _: selector, template))
    return confine(text, namespace, labels.namespace)


def check(group: Group, labels: ScrapeLabels) -> None:
    """Raises BadQuery for what this server cannot be asked."""
    for template in group.signals.templates:
        fill(template, group.namespace, [group.name], labels)


def _shard(template: str, members: Sequence[Group]) -> int:
    """How many Deployments one query can name: its length is bounded before it is parsed."""
    longest = max(len(one.name) for one in members) + 30
    times = max(1, len(_SELECTOR.findall(template)))
    return max(1, (MAX_LENGTH - 400 - len(template)) // (times * longest))


def questions(groups: Iterable[Group], labels: ScrapeLabels) -> tuple[Question, ...]:
    """As few as there are texts and namespaces. A text that is no PromQL is not asked."""
    found: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in sorted(set(groups), key=lambda one: (one.namespace, one.name)):
        for template in group.signals.templates:
            found[group.namespace, template].append(group)
    asked = []
    for (namespace, template), members in sorted(found.items(), key=lambda item: item[0]):
        size = _shard(template, members)
        for at in range(0, len(members), size):
            shard = tuple(members[at : at + size])
            with suppress(BadQuery):
                text = fill(template, namespace, (one.name for one in shard), labels)
                asked.append(Question(text, template, shard))
    return tuple(asked)


@dataclass(frozen=True, slots=True)
class PodCounts:
    """One pod since its server began. ``buckets``: answers up to so many seconds; None: unread."""

    requests: float | None = None
    errors: float | None = None
    buckets: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pods:
    """What the pods of both sides have counted, by name; ``failed``: why nobody can say."""

    candidate: Mapping[str, PodCounts] = field(default_factory=dict)
    stable: Mapping[str, PodCounts] = field(default_factory=dict)
    failed: NoAnswer | None = None


def read(
    answers: Iterable[tuple[Question, Answer | NoAnswer]], labels: ScrapeLabels
) -> Mapping[Group, Mapping[str, PodCounts] | NoAnswer]:
    """The counts of each group; of other pods, and what is no finite count, is passed over. Of an
    answer with warnings a part may be missing, so it is none.
    """
    drafts: dict[Group, dict[str, dict[str, Any]]] = {}
    failed: dict[Group, NoAnswer] = {}
    for question, answer in answers:
        owners = {group.name: group for group in question.groups}
        for group in question.groups:
            drafts.setdefault(group, {})
        refused = answer if isinstance(answer, NoAnswer) else incomplete(answer)
        if refused is not None:
            failed |= dict.fromkeys(question.groups, refused)
        if isinstance(answer, NoAnswer) or refused is not None:
            continue
        for sample in answer.samples:
            pod = sample.labels.get(labels.pod, "")
            match = _POD.fullmatch(pod)
            owner = owners.get(match[1]) if match else None
            if owner is None or not 0 <= sample.value < math.inf:
                continue
            draft = drafts[owner].setdefault(pod, {"buckets": {}})
            _put(draft, owner.signals, question.template, sample.labels.get("le"), sample.value)
    return {
        group: failed.get(group) or {pod: PodCounts(**draft) for pod, draft in pods.items()}
        for group, pods in drafts.items()
    }


def _put(
    draft: dict[str, Any], signals: Signals, template: str, edge: str | None, value: float
) -> None:
    if template == signals.buckets and edge is not None:
        try:
            draft["buckets"][float(edge) * signals.unit] = value
        except ValueError:
            return
    elif template == signals.errors:
        draft["errors"] = value
    elif template == signals.requests:
        draft["requests"] = value


def counters(pod: PodCounts, edges: Sequence[float]) -> Counters:
    """A pod as the judge takes it in; without latencies where it has no bucket at some edge, and
    without errors where nobody knows of how many requests.
    """
    total = _total(pod)
    sums = [_up_to(pod.buckets, edge) for edge in (*edges, math.inf)]
    known = [value for value in sums if value is not None]
    latency: tuple[float, ...] = ()
    if edges and len(known) == len(sums) and known == sorted(known):
        latency = tuple(b - a for a, b in zip([0.0, *known], known, strict=False))
    errors = 0.0 if total is None else pod.errors or 0.0
    return Counters(max(total or 0.0, errors), errors, 0.0, latency)


def _total(pod: PodCounts) -> float | None:
    return pod.requests if pod.requests is not None else pod.buckets.get(math.inf)


def _up_to(buckets: Mapping[float, float], edge: float) -> float | None:
    return next((n for at, n in buckets.items() if at == edge or _near(at, edge)), None)


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def missing_edge(pods: Iterable[PodCounts], edges: Sequence[float]) -> str:
    """Which objective the servers have no bucket for, and what would do; empty when all have."""
    known = {at for pod in pods for at in pod.buckets if math.isfinite(at)}
    for edge in edges:
        if known and not any(_near(at, edge) for at in known):
            below = max((at for at in known if at < edge), default=None)
            above = min((at for at in known if at > edge), default=None)
            near = " and ".join(f"{at:g}s" for at in (below, above) if at is not None)
            return f"the server counts no answers up to {edge:g}s: set max to one of its: {near}"
    return ""


@dataclass(frozen=True, slots=True)
class Lives:
    """What the pods of one side have counted so far, those that restarted or went among them.

    ``shown``: what each pod showed when its counts were last taken, and when that was.
    """

    ended: Counters = field(default_factory=Counters)
    last: Mapping[str, Counters] = field(default_factory=dict)
    shown: Mapping[str, tuple[float, PodCounts]] = field(default_factory=dict)

    def seen(self, pods: Mapping[str, Counters]) -> Lives:
        """After another look. Counts that fell are of a new life."""
        return Lives(*past_lives(self.ended, self.last, pods, _fell), self.shown)

    @property
    def sum(self) -> Counters:
        found = self.ended
        for counts in self.last.values():
            found = found.plus(counts)
        return found


def _fell(before: Counters, now: Counters) -> bool:
    pairs = zip((before.attempts, before.errors, *before.latency),
                (now.attempts, now.errors, *now.latency), strict=False)  # fmt: skip
    return any(b > n for b, n in pairs)


def _contradict(before: PodCounts, now: PodCounts) -> bool:
    """Whether one count fell, or is not shown, and another did not: a pod that begins anew begins
    with all of them.
    """
    pairs = [
        (then or 0.0, after or 0.0)
        for then, after in (
            (before.requests, now.requests),
            (before.errors, now.errors),
            (before.buckets.get(math.inf), now.buckets.get(math.inf)),
        )
    ]
    return any(b > n for b, n in pairs) and any(0 < b <= n for b, n in pairs)


def _whole(
    pods: Mapping[str, PodCounts], shown: Mapping[str, tuple[float, PodCounts]], at: float
) -> Mapping[str, PodCounts]:
    """The pods whose counts can be taken as they are. Of the others the last ones stand."""
    found = {}
    for name, now in pods.items():
        since, before = shown.get(name, (-math.inf, now))
        if 0 <= at - since < CONTRADICTION and _contradict(before, now):
            continue
        # Buckets do not stand in for requests that were counted before.
        if _total(now) is not None and (before.requests is None or now.requests is not None):
            found[name] = now
    return found


def _looked(
    lives: Lives, whole: Mapping[str, PodCounts], edges: Sequence[float], at: float
) -> Lives:
    after = lives.seen({name: counters(pod, edges) for name, pod in whole.items()})
    shown = {**lives.shown, **{name: (at, pod) for name, pod in whole.items()}}
    return replace(after, shown={name: one for name, one in shown.items() if name in after.last})


def take(
    pods: Pods, edges: Sequence[float], at: float, memory: tuple[Lives, Lives]
) -> tuple[Mapping[str, Scrape], tuple[Lives, Lives]]:
    """One scrape of all pods together, and what to remember; none while no candidate answers. While
    none answers in whole, the last scrape is given again, which says nothing new.
    """
    candidate, stable = memory
    ours = _whole(pods.candidate, candidate.shown, at)
    theirs = _whole(pods.stable, stable.shown, at)
    remembered = (_looked(candidate, ours, edges, at), _looked(stable, theirs, edges, at))
    known = [since for name, (since, _) in remembered[0].shown.items() if name in pods.candidate]
    if not known:
        return {}, remembered
    return {"pods": Scrape(max(known), remembered[0].sum, (remembered[1].sum,))}, remembered
