"""``mooring status``: waits for a rollout and ends with a code that a pipeline can act on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from mooring.cli.failure import DONE, FAILED, INTERRUPTED, NOT_FOUND, TIMEOUT, Failure
from mooring.cli.options import Duration, cluster_options, name_argument, output_option
from mooring.cli.words import plain, span

if TYPE_CHECKING:
    from mooring.cli.cluster import Target
    from mooring.cli.snapshot import Snapshot
    from mooring.cli.watching import Follower


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a wait ends: an exit code and the sentence that goes with it."""

    code: int
    message: str


@click.command()
@name_argument
@click.option(
    "--for",
    "goal",
    type=click.Choice(["rolled-out", "ready"]),
    default="rolled-out",
    show_default=True,
    help="rolled-out: the revision that spec asks for is stable and has its capacity. "
    "ready: whatever is stable has its capacity.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default=timedelta(minutes=10),
    show_default="10m",
    help="How long to wait, such as 90s or 10m; 0s looks once.",
)
@output_option()
@cluster_options
def status(name: str, goal: str, timeout: timedelta, output: str, target: Target) -> None:
    """Wait until a rollout is done, printing a line at every change.

    A status of an older spec counts for nothing: after `kubectl apply`, this waits until the
    operator has looked at what was applied. A dropped connection is waited out. A rollout that
    waits for promote is neither done nor failed: it is waited for until the timeout.

    Exit codes: 0 done; 1 failed: rolled back, rejected or stalled; 2 wrong usage; 3 neither within
    the timeout. 4 to 8: the cluster could not be asked, see mooring --help.
    """
    from mooring.cli.cluster import connect
    from mooring.cli.watching import Follower

    with Follower(connect(target), name, with_pods=False) as follower:
        try:
            verdict = _wait(follower, goal, timeout, quiet=output != "text")
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        if output != "text":
            _print_data(follower, verdict, output)
        else:
            click.echo(verdict.message, err=verdict.code != DONE)
    sys.exit(verdict.code)


def _wait(follower: Follower, goal: str, timeout: timedelta, *, quiet: bool) -> Verdict:
    from mooring.cli.line import line

    judge = judge_for(goal)
    end = time.monotonic() + timeout.total_seconds()
    shown, lost = "", ""
    while True:
        snapshot = follower.snapshot
        if snapshot is None:
            raise Failure(f"ModelDeployment {follower.name} was deleted", NOT_FOUND)
        verdict = judge(snapshot)
        if verdict is not None:
            return verdict
        if follower.lost != lost and not quiet:
            lost = follower.lost
            click.echo(f"connection lost, trying again: {lost}" if lost else "connected again")
        text = line(snapshot)
        if text != shown and not quiet:
            shown = text
            click.echo(text)
        left = end - time.monotonic()
        if left <= 0:
            return _too_late(snapshot, goal, timeout)
        follower.wait(left)


def judge_for(goal: str) -> Callable[[Snapshot], Verdict | None]:
    """What says whether a wait is over: None means wait on."""
    return {"ready": _ready, "rolled-out": _rolled_out}[goal]


def _ready(snapshot: Snapshot) -> Verdict | None:
    if snapshot.unseen:
        return None
    if snapshot.holds("Ready"):
        return Verdict(DONE, f"ready: {plain(snapshot.condition('Ready').get('message'))}")
    return _stalled(snapshot)


def _rolled_out(snapshot: Snapshot) -> Verdict | None:
    if snapshot.unseen:
        return None
    back = snapshot.condition("RolledBack")
    if snapshot.holds("RolledBack"):
        return Verdict(FAILED, f"rolled back: {plain(back.get('reason'))}: {_message(back)}")
    stalled = _stalled(snapshot)
    if stalled is not None:
        return stalled
    stable = snapshot.part("stable")
    if stable and not snapshot.part("candidate") and snapshot.holds("Ready"):
        return Verdict(
            DONE, f"rolled out: revision {plain(stable.get('revision'))} serves "
            f"{plain(stable.get('modelUri'))}"
        )  # fmt: skip
    return None


def _stalled(snapshot: Snapshot) -> Verdict | None:
    if not snapshot.holds("Stalled"):
        return None
    found = snapshot.condition("Stalled")
    return Verdict(FAILED, f"stalled: {plain(found.get('reason'))}: {_message(found)}")


def _message(condition: dict[str, str]) -> str:
    return plain(condition.get("message"))


def _too_late(snapshot: Snapshot, goal: str, timeout: timedelta) -> Verdict:
    if not snapshot.status:
        why = "the operator has not looked at it: is it running?"
    elif snapshot.unseen:
        why = "the operator has not looked at the newest spec: is it running?"
    else:
        waiting = plain(snapshot.part("rollout").get("waitingFor"))
        why = f"waits for {waiting}" if waiting else plain(snapshot.status.get("message"))
    return Verdict(TIMEOUT, f"not {goal} within {span(timeout)}: {why}")


def _print_data(follower: Follower, verdict: Verdict, output: str) -> None:
    from mooring.cli.output import data

    snapshot = follower.snapshot
    result = {DONE: "Done", FAILED: "Failed", TIMEOUT: "Timeout"}[verdict.code]
    value = {
        "name": follower.name,
        "result": result,
        "message": verdict.message,
        "status": snapshot.told if snapshot else None,
    }
    click.echo(data(value, output), nl=False)
