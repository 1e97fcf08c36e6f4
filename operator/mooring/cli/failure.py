"""How a command ends that cannot do what was asked: one sentence with the way out, and a code."""

from __future__ import annotations

import click

DONE = 0
FAILED = 1
USAGE = 2
TIMEOUT = 3
NO_CONFIGURATION = 4
UNREACHABLE = 5
NOT_ALLOWED = 6
NOT_FOUND = 7
NOT_INSTALLED = 8
INTERRUPTED = 130


class Failure(click.ClickException):
    """A sentence for standard error, and one of the exit codes of this module."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click asks for it by this name
        """The code that the program ends with."""
        return self.code
