"""The one exception that the command line turns into a message instead of a traceback."""

from __future__ import annotations


class DevError(Exception):
    """Something a person can act on: the message says what happened and what to do next."""
