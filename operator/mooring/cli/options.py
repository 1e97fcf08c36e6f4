"""Options that several commands share, and the completion of names from the cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from mooring.cli.cluster import Target, connect
from mooring.cli.words import parse_duration
from mooring.core import kinds

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Duration(click.ParamType[timedelta]):
    """A Go duration such as 10m."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def cluster_options(
    command: _Command, *, namespace: str = "Namespace; by default that of the context."
) -> _Command:
    """``-n`` (with this help), ``--context`` and ``--kubeconfig``, passed on as one ``target``."""
    return _target(
        click.option(
            "-n",
            "--namespace",
            default="",
            shell_complete=_complete_namespace,
            help=namespace,
        )(
            click.option("--context", default="", help="Context of the kubeconfig to use.")(
                click.option(
                    "--kubeconfig",
                    default="",
                    metavar="FILE",
                    help="The kubeconfig; by default KUBECONFIG, ~/.kube/config, or the pod's own.",
                )(command)
            )
        )
    )


def _target(command: _Command) -> _Command:
    import functools

    @functools.wraps(command)
    def with_target(*args: Any, namespace: str, context: str, kubeconfig: str, **rest: Any) -> Any:
        return command(*args, target=Target(kubeconfig, context, namespace), **rest)

    return with_target  # type: ignore[return-value]  # the decorators of click look at no types


def output_option(*choices: str) -> Callable[[_Command], _Command]:
    """``-o``: text for people, or data as json or yaml."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", *(choices or ("json", "yaml"))]),
        default="text",
        show_default=True,
        help="Text for people, or the same as data.",
    )


no_color_option = click.option(
    "--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too)."
)


def name_argument(command: _Command) -> _Command:
    """``NAME`` of a ModelDeployment, completed from the cluster."""
    return click.argument("name", shell_complete=_complete_name)(command)


def complete_revision(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Hashes of the revisions of the ModelDeployment named before it on the command line."""
    # After an option whose value is still missing, click leaves the arguments where they were.
    name = ctx.params.get("name") or next(iter(ctx.args), "")
    labels = f"{kinds.LABEL_DEPLOYMENT}={name}"
    prefix = f"{name}-"
    found = _names(ctx, kinds.CONTROLLER_REVISION, labels) if name else []
    return _starting([n.removeprefix(prefix) for n in found], incomplete)


def _complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return _starting(_names(ctx, kinds.MODEL_DEPLOYMENT), incomplete)


def _complete_namespace(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    namespace = kinds.Kind("", "v1", "Namespace", "namespaces", namespaced=False)
    return _starting(_names(ctx, namespace), incomplete)


def _names(ctx: click.Context, kind: kinds.Kind, labels: str = "") -> list[str]:
    """What the cluster has; nothing at all when it cannot be asked, for a shell shows no errors."""
    given = {key: ctx.params.get(key) or "" for key in ("kubeconfig", "context", "namespace")}
    try:
        return connect(Target(**given)).names(kind, labels)
    except click.ClickException:
        return []


def _starting(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]
