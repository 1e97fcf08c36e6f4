"""The tree that ``mooring get`` draws: one function for each section, in the order shown.

A section gets the scene and returns its branches. What is not known is not drawn: an older operator
fills less of the status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text
from rich.tree import Tree

from mooring.cli.analysis_view import branches
from mooring.cli.bar import bar
from mooring.cli.cluster import Json
from mooring.cli.snapshot import ROLES, Snapshot, leaves
from mooring.cli.words import (
    age,
    clock,
    count,
    moment,
    plain,
    short_digest,
    short_uri,
    span,
)
from mooring.core import pods

#: More pods of one revision than this are counted, not listed; those in trouble come first. Where
#: the screen has too few rows, fewer are.
PODS_SHOWN = (8, 3, 1)
_REJECTED_SHOWN = 3
_GUIDE = 4  # columns that each level of the tree takes

PHASES = {
    "Serving": "green",
    "RollingOut": "cyan",
    "Baking": "cyan",
    "Starting": "cyan",
    "Paused": "yellow",
    "ScaledToZero": "yellow",
    "RollingBack": "red",
    "Degraded": "red",
    "Stalled": "red",
}
"""The colour of each phase; an unknown one has none."""

_ROLES = {"stable": "green", "candidate": "cyan", "previous": "blue"}
_NORMAL_TRUE = ("Ready", "DataHealthy")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is drawn, when, how many columns there are, and how many pods of one revision."""

    snapshot: Snapshot
    now: datetime
    width: int
    pods: int = PODS_SHOWN[0]


Section = Callable[[Scene], Iterable[Tree]]


def tree(scene: Scene) -> Tree:
    """Everything worth knowing about one ModelDeployment."""
    root = Tree(_head(scene), guide_style="dim")
    for section in SECTIONS:
        root.children.extend(section(scene))
    return root


def _head(scene: Scene) -> Text:
    snapshot, status = scene.snapshot, scene.snapshot.status
    phase = plain(status.get("phase")) or "not looked at yet"
    text = Text.assemble(
        (snapshot.name, "bold"), f" in {snapshot.namespace}  ", (phase, PHASES.get(phase, ""))
    )
    if status.get("message"):
        text.append(f"\n{plain(status['message'])}")
    if not status:
        text.append("\nno status: is the operator running?", "yellow")
    elif snapshot.unseen:
        text.append("\nthe operator has not looked at the newest change of spec yet", "yellow")
    return text


def _revisions(scene: Scene) -> Iterable[Tree]:
    snapshot = scene.snapshot
    for role in ROLES:
        record = snapshot.part(role)
        if record:
            branch = Tree(_revision(role, record, scene))
            branch.children.extend(_pods(snapshot.pods_of(str(record.get("revision"))), scene))
            yield branch
    for revision, found in sorted(snapshot.leaving.items()):
        branch = Tree(Text.assemble(("leaving", "dim"), f" {revision}"))
        branch.children.extend(_pods(found, scene))
        yield branch
    if snapshot.pods_unknown:
        yield Tree(Text(f"pods are not shown: {snapshot.pods_unknown}", "yellow"))


def _revision(role: str, record: Json, scene: Scene) -> Text:
    text = Text.assemble((role, _ROLES[role]), " ", (plain(record.get("revision")), "bold"))
    if record.get("weight") is not None:
        text.append(f"  weight {record['weight']} %", "bold" if record["weight"] else "dim")
        if record.get("measuredWeight") is not None:
            text.append(f" (measured {record['measuredWeight']} %)")
    replicas = record.get("replicas")
    if replicas:
        ready, desired = replicas.get("ready", 0), replicas.get("desired", 0)
        style = "green" if ready >= desired else "yellow" if ready else "red"
        text.append(f"  {ready}/{desired} pods ready", style)
    if record.get("since"):
        text.append(f"  for {age(record['since'], scene.now)}", "dim")
    facts = [short_digest(record["modelDigest"])] if record.get("modelDigest") else []
    facts += [plain(record["runtime"])] if record.get("runtime") else []
    room = scene.width - _GUIDE - sum(len(fact) + 2 for fact in facts)
    text.append("\n" + "  ".join([short_uri(record.get("modelUri"), room), *facts]), "dim")
    return text


def _pods(found: list[Json], scene: Scene, *, of_model: bool = True) -> Iterable[Tree]:
    ordered = sorted(found, key=lambda pod: (pods.report(pod).ready, pod["metadata"]["name"]))
    for pod in ordered[: scene.pods]:
        yield Tree(_pod(pod, of_model))
    rest = ordered[scene.pods :]
    if rest:
        ready = sum(pods.report(pod).ready for pod in rest)
        yield Tree(Text(f"and {count(len(rest), 'more pod')}, {ready} of them ready", "dim"))


def _pod(pod: Json, of_model: bool) -> Text:
    report = pods.report(pod)
    text = Text(plain(report.name) + "  ")
    if leaves(pod):
        text.append("ending", "dim")
    elif report.ready:
        text.append("ready", "green")
    else:
        text.append("not ready", "yellow" if report.reason == "Starting" else "red")
    if report.restarts:
        text.append(f", {count(report.restarts, 'restart')}", "yellow")
    if report.reason and report.reason != "Starting":
        text.append(f", {plain(report.reason)}", "red")
    # How far the start of a server is says nothing of a router.
    if report.message and (of_model or report.reason != "Starting"):
        text.append(f": {plain(report.message)}")
    return text


def _rollout(scene: Scene) -> Iterable[Tree]:
    rollout = scene.snapshot.part("rollout")
    if not rollout:
        return
    branch = Tree(_step(rollout))
    branch.children.extend(Tree(line) for line in _times(rollout, scene.now))
    if rollout.get("waitingFor"):
        branch.add(Text(f"waits for: {plain(rollout['waitingFor'])}"))
    if rollout.get("next"):
        branch.add(Text(f"next: {plain(rollout['next'])}"))
    yield branch


def _step(rollout: Json) -> Text:
    text = Text.assemble(("rollout", "cyan"), " ")
    if rollout.get("stage"):
        text.append(plain(rollout["stage"]), "bold")
    if rollout.get("step") is not None:
        total = f" of {rollout['steps']}" if rollout.get("steps") is not None else ""
        text.append(f"  step {rollout['step']}{total}")
    if rollout.get("doing"):
        text.append(f": {plain(rollout['doing'])}")
    return text


def _times(rollout: Json, now: datetime) -> Iterable[Text]:
    since, until = moment(rollout.get("since")), moment(rollout.get("until"))
    if since is not None:
        text = Text(f"since {clock(rollout['since'], now)} ({span(now - since)})")
        if until is not None and until > since:
            text.append("  ")
            text.append_text(bar((now - since) / (until - since)))
        yield text
    if until is not None:
        left = f"{span(until - now)} left" if until > now else "time is up"
        yield Text.assemble(f"until {clock(rollout['until'], now)} (", (left, "bold"), ")")
    deadline = moment(rollout.get("deadline"))
    if deadline is not None and until is None:
        left = f"in {span(deadline - now)}" if deadline > now else "now"
        yield Text(f"given up without progress at {clock(rollout['deadline'], now)} ({left})")


def _analysis(scene: Scene) -> Iterable[Tree]:
    return branches(scene.snapshot, scene.now)


def _retraining(scene: Scene) -> Iterable[Tree]:
    """What was asked for last, and what became of it."""
    found, adopted = scene.snapshot.part("retraining"), scene.snapshot.part("adoptedModel")
    if not found.get("request") and not found.get("message"):
        return
    text = Text.assemble(("retraining", "cyan"), f" {plain(found.get('request')) or 'not yet'}")
    if found.get("outcome"):
        failed = found["outcome"] == "Failed"
        text.append(f"  {plain(found['outcome'])}", "red" if failed else "green")
    elif found.get("inFlight"):
        text.append("  in flight", "bold")
    if adopted.get("request") and adopted["request"] == found.get("request"):
        text.append(f" by revision {plain(adopted.get('revision'))}")
    branch = Tree(text)
    if found.get("message"):
        branch.add(Text(plain(found["message"])))
    yield branch


def _router(scene: Scene) -> Iterable[Tree]:
    router = scene.snapshot.part("router")
    if not router:
        return
    text = Text.assemble(("router", "magenta"), f" {plain(router.get('kind'))}")
    replicas = router.get("routers")
    if replicas:
        ready, desired = replicas.get("ready", 0), replicas.get("desired", 0)
        text.append(f"  {ready}/{desired} ready", "green" if ready >= desired else "yellow")
    version, taken = router.get("version"), router.get("taken")
    if version and version == taken:
        text.append(f"  routes {plain(version)} taken")
    elif version:
        text.append(f"  routes {plain(version)} not taken by all yet", "yellow")
        text.append(f" (all have {plain(taken)})" if taken else "")
    if router.get("message"):
        text.append(f"\n{plain(router['message'])}", "yellow")
    branch = Tree(text)
    troubled = [p for p in scene.snapshot.router_pods if not pods.report(p).ready]
    branch.children.extend(_pods(troubled, scene, of_model=False))
    yield branch


def _conditions(scene: Scene) -> Iterable[Tree]:
    """Those that say something is not as it should be, or under way."""
    said = plain(scene.snapshot.status.get("message"))
    for condition in scene.snapshot.status.get("conditions") or ():
        kind, status = plain(condition.get("type")), plain(condition.get("status"))
        if status == ("True" if kind in _NORMAL_TRUE else "False"):
            continue
        mild = kind in ("Reconciling", "RollingOut")
        name = kind if status == "True" else f"{kind} {status}"
        text = Text.assemble((name, "cyan" if mild else "red"), f"  {plain(condition['reason'])}")
        if plain(condition.get("message")) not in ("", said):
            text.append(f": {plain(condition['message'])}")
        yield Tree(text)


def _last_action(scene: Scene) -> Iterable[Tree]:
    action = scene.snapshot.part("lastAction")
    if not action:
        return
    refused = action.get("result") == "Refused"
    text = Text.assemble("last action  ", (plain(action.get("verb")), "bold"))
    text.append(f" {plain(action.get('revision'))}" if action.get("revision") else "")
    if action.get("result"):
        text.append("  ").append(plain(action["result"]), "red" if refused else "green")
    if action.get("at"):
        text.append(f" {age(action['at'], scene.now)} ago", "dim")
    if action.get("message"):
        text.append(f": {plain(action['message'])}")
    yield Tree(text)


def _rejected(scene: Scene) -> Iterable[Tree]:
    found = scene.snapshot.status.get("rejectedRevisions") or []
    for record in found[:_REJECTED_SHOWN]:
        text = Text.assemble(("rejected", "red"), f" {plain(record.get('revision'))}")
        text.append(f"  {plain(record.get('reason'))}", "bold")
        if record.get("at"):
            text.append(f" {age(record['at'], scene.now)} ago", "dim")
        if record.get("message"):
            text.append(f": {plain(record['message'])}")
        yield Tree(text)
    if len(found) > _REJECTED_SHOWN:
        text = Text(f"and {len(found) - _REJECTED_SHOWN} more rejected: see mooring history")
        yield Tree(text)


SECTIONS: tuple[Section, ...] = (
    _conditions,
    _revisions,
    _rollout,
    _analysis,
    _retraining,
    _router,
    _last_action,
    _rejected,
)
"""The sections from top to bottom; a new one is a function and a line here."""
