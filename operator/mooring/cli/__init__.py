"""``mooring``, and the same as ``kubectl mooring``: the command line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mooring import __version__

_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "See what is served": {
        "list": ("listing:list_", "List ModelDeployments."),
        "get": ("get:get", "Show one ModelDeployment as a tree; -w keeps it up to date."),
        "status": ("status:status", "Wait until a rollout is done; made for pipelines."),
        "explain": ("explain:explain", "Say why it is not Ready, and what to do next."),
        "history": ("history:history", "List the revisions and what became of them."),
        "diff": ("diff:diff", "Show what differs between two revisions."),
        "drift": ("drift:drift", "Show how the data stands beside its reference."),
        "report": ("report:report", "Write that as one page, with plots."),
    },
    "Steer a rollout": {
        "promote": ("verbs:promote", "Let the candidate go on to its next step."),
        "abort": ("verbs:abort", "Take the candidate back and reject it."),
        "retry": ("verbs:retry", "Let a rejected revision roll out again."),
        "undo": ("verbs:undo", "Go back to the revision that was stable before."),
        "pause": ("verbs:pause", "Hold the candidate where it is."),
        "resume": ("verbs:resume", "Let a paused candidate go on."),
        "retrain": ("verbs:retrain", "Ask for a new model, made on data up to now."),
        "restart": ("verbs:restart", "Render the revision anew and roll it out."),
    },
    "Prepare": {
        "lint": ("lint:lint", "Check files as the cluster would, without one."),
        "digest": ("digest:digest", "Print the digest of a model, as the fetcher verifies it."),
        "probe": ("probe:probe", "Check a running server against the Open Inference Protocol v2."),
        "simulate": ("simulate:simulate", "Say what the judge would do with steps and traffic."),
        "replay": ("replay:replay", "Say what the judge would have done, by Prometheus' past."),
        "reference": ("reference:reference", "Build the reference that drift is judged against."),
    },
    "Run and keep": {
        "run": ("run:run", "Run the operator until it is told to stop."),
        "crds": ("crds:crds", "Print or apply the CRDs of this version."),
        "export": ("export:export", "Print everything that must survive the loss of a cluster."),
        "version": ("version:version", "Print the versions of this program and of the cluster."),
    },
}
"""Commands by section of ``--help``: name → (module of this package:attribute, the line shown).

A module is imported only when its command is used, so that none pays for what others import."""

_PLUGIN = "kubectl-"


class _Lazy(click.Group):
    """A group that imports a command on use, and lists them by section without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in _SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in _SECTIONS.values():
            if cmd_name in commands:
                module, _, attribute = commands[cmd_name][0].partition(":")
                found = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
                assert isinstance(found, click.Command)
                return found
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs under the name that it was called by: ``mooring`` or ``kubectl mooring``."""
        called = Path(sys.argv[0]).name
        name = "kubectl mooring" if called.startswith(_PLUGIN) else "mooring"
        return super().main(
            args,
            prog_name=prog_name or name,
            complete_var=complete_var or "_MOORING_COMPLETE",
            standalone_mode=standalone_mode,
            **extra,
        )


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mooring")
def main() -> None:
    """Keeps machine-learning models from drifting: serve, roll out, watch, retrain.

    Most of it is done by kubectl alone; these commands add what kubectl cannot show.

    Exit codes of all commands that ask a cluster: 0 done; 1 failed, refused or taken back; 2 wrong
    usage; 3 not within the time given; 4 no usable kubeconfig; 5 the API server cannot be reached;
    6 not allowed; 7 there is no such object; 8 Mooring is not installed in the cluster; 130 ended
    by Ctrl-C.
    """
