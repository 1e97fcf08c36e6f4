"""The verbs: what a person asks for, given by the annotation ``mooring.dev/action``.

Each names the revision that its author saw, so that one that comes late hits no other; and has a
token of its own, by which its acknowledgement in ``status.lastAction`` is told from older ones.
"""

from __future__ import annotations

import functools
import re
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mooring.cli.failure import DONE, FAILED, INTERRUPTED, TIMEOUT, Failure
from mooring.cli.options import (
    Duration,
    cluster_options,
    complete_revision,
    name_argument,
    no_color_option,
    output_option,
)
from mooring.cli.words import plain, span
from mooring.core import kinds

if TYPE_CHECKING:
    from mooring.cli.cluster import Cluster, Json, Target
    from mooring.cli.watching import Follower

_REVISION = re.compile(r"[a-z0-9-]{1,63}")
_EXIT_CODES = """

    Exit codes: 0 accepted (or written, with --no-wait); 1 refused, or there is no revision to name;
    2 wrong usage; 3 not acknowledged in time: it is still carried out once the operator runs. 4 to
    8: the cluster could not be asked, see mooring --help.
    """


def _checked_revision(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The operator cannot answer to an annotation that it cannot read."""
    if value and not _REVISION.fullmatch(value):
        raise click.BadParameter("a revision is small letters, digits and '-': see mooring history")
    return value


def _verb(command: Callable[..., None]) -> click.Command:
    """A command with the options that all verbs share."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    run.__doc__ = (command.__doc__ or "").rstrip() + _EXIT_CODES
    for option in (
        cluster_options,
        no_color_option,
        output_option(),
        click.option("--no-wait", is_flag=True, help="Write the annotation and end."),
        click.option(
            "--timeout",
            type=Duration(),
            default=timedelta(seconds=10),
            show_default="10s",
            help="How long to wait for the operator's answer.",
        ),
        click.option(
            "--revision",
            default="",
            callback=_checked_revision,
            shell_complete=complete_revision,
            help="The revision to name in place of the one that status shows.",
        ),
        name_argument,
    ):
        run = option(run)
    return click.command()(run)


@_verb
@click.option("--full", is_flag=True, help="Leave out all further steps.")
def promote(*, full: bool, **given: Any) -> None:
    """Let the candidate go on: end the pause or the step that it waits in.

    With --full it becomes stable at once, as soon as its pods can carry the traffic.
    """
    _give("promote-full" if full else "promote", _candidate, **given)


@_verb
def abort(**given: Any) -> None:
    """Take the candidate back: the traffic returns to stable, and the revision is rejected.

    It is not tried again until its spec changes or `mooring retry` allows it.
    """
    _give("abort", _candidate, **given)


@_verb
def retry(**given: Any) -> None:
    """Let a rejected revision roll out again; without --revision the one rejected last."""
    _give("retry", _newest_rejected, **given)


@_verb
def undo(**given: Any) -> None:
    """Go back from the stable revision to the one that was stable before."""
    _give("undo", _stable, **given)


@_verb
def pause(**given: Any) -> None:
    """Hold the candidate where it is, until `mooring resume`."""
    _give("pause", _candidate, **given)


@_verb
def resume(**given: Any) -> None:
    """Let a paused candidate go on."""
    _give("resume", _candidate, **given)


@_verb
def restart(**given: Any) -> None:
    """Render the stable revision anew, with today's runtime template, and roll that out."""
    _give("restart", _stable_or_first, **given)


@_verb
def retrain(**given: Any) -> None:
    """Ask for a new model, made on data up to now: a RetrainingRequest for the stable revision.

    spec.retraining says who trains. Cooldown and budget do not hold it; broken data and a request
    that is not finished do.
    """
    _give("retrain", _stable, **given)


def _candidate(status: Json) -> str:
    found = (status.get("candidate") or {}).get("revision")
    if not found:
        raise Failure("nothing is rolling out: there is no candidate")
    return str(found)


def _stable(status: Json) -> str:
    found = (status.get("stable") or {}).get("revision")
    if not found:
        raise Failure("there is no stable revision yet")
    return str(found)


def _stable_or_first(status: Json) -> str:
    return _stable(status) if status.get("stable") else _candidate(status)


def _newest_rejected(status: Json) -> str:
    found = status.get("rejectedRevisions") or []
    if not found:
        raise Failure("no revision is rejected")
    return str(found[0]["revision"])


def new_token(now: datetime) -> str:
    """A token that nobody has used: when it was given, and a little chance."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _give(
    verb: str,
    choose: Callable[[Json], str],
    *,
    name: str,
    revision: str,
    timeout: timedelta,
    no_wait: bool,
    output: str,
    no_color: bool,
    target: Target,
) -> None:
    from mooring.cli.cluster import connect
    from mooring.cli.watching import Follower

    cluster = connect(target)
    with Follower(cluster, name, with_pods=False) as follower:
        status = (follower.resource or {}).get("status") or {}
        chosen = revision.removeprefix(f"{name}-") or choose(status)
        token = new_token(datetime.now(UTC))
        _write(cluster, name, f"{verb}/{chosen}/{token}")
        action: Json = {"verb": verb, "revision": chosen, "token": token, "result": "Given"}
        if no_wait:
            action["message"] = "the operator was told; not waited for its answer"
        elif follower.until(lambda f: _answer(f, verb, token) is not None, timeout.total_seconds()):
            action = _answer(follower, verb, token) or action
        else:
            action["result"] = "NotAcknowledged"
            action["message"] = (
                f"no answer within {span(timeout)}: is the operator running? It acts on it once it "
                "does"
            )
    _say(action, output, no_color)
    sys.exit({"Refused": FAILED, "NotAcknowledged": TIMEOUT}.get(str(action["result"]), DONE))


def _write(cluster: Cluster, name: str, action: str) -> None:
    cluster.annotate(kinds.MODEL_DEPLOYMENT, name, {kinds.ANNOTATION_ACTION: action})


def _answer(follower: Follower, verb: str, token: str) -> Json | None:
    """What the operator said to this verb, once it has."""
    found = ((follower.resource or {}).get("status") or {}).get("lastAction") or {}
    same = found.get("token") == token and found.get("verb") == verb and found.get("result")
    return found if same else None


def _say(action: Json, output: str, no_color: bool) -> None:
    from mooring.cli.output import console, data

    if output != "text":
        click.echo(data(action, output), nl=False)
        return
    from rich.text import Text

    colours = {"Accepted": "green", "Refused": "red", "NotAcknowledged": "yellow"}
    words = {"NotAcknowledged": "Not acknowledged"}
    result = str(action["result"])
    text = Text(words.get(result, result), colours.get(result, ""))
    text.append(f": {action['verb']} {plain(action.get('revision'))}", "default")
    text.append(f": {plain(action.get('message'))}" if action.get("message") else "", "default")
    console(no_color).print(text, soft_wrap=True)
