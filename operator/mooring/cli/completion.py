"""Completion for ``kubectl mooring <TAB>``: kubectl asks the program ``kubectl_complete-mooring``.

It gets the words typed so far, the last of them perhaps empty, and answers with one candidate a
line and a directive. The completion of ``mooring <TAB>`` itself is click's.
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import ShellComplete

from mooring.cli import main

#: "Offer no files": none of our commands but lint takes one.
_NO_FILES = ":4"
_FILES = ":0"


def kubectl_complete() -> None:
    """Prints the candidates for the last word."""
    *words, incomplete = sys.argv[1:] or [""]
    found = ShellComplete(main, {}, "mooring", "_MOORING_COMPLETE").get_completions(
        words, incomplete
    )
    for item in found:
        if item.type == "plain":
            click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(_FILES if any(item.type in ("file", "dir") for item in found) else _NO_FILES)


if __name__ == "__main__":
    kubectl_complete()
