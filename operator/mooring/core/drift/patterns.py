"""Whether a pattern is one that the collector can match, which is RE2's to say: so RE2 is asked."""

from __future__ import annotations

import re2  # type: ignore[import-untyped]

#: Bytes for a pattern's program: room for nearly none, since the operator matches nothing. RE2 is
#: done once it has read the pattern, in milliseconds; with the room that the collector gives it,
#: 256 characters can take two seconds, in which the process does nothing else.
_HARDLY_ANY = 1 << 10
#: What RE2 says of a pattern that it could read, but whose program found no room.
_TOO_LARGE = "pattern too large"


def problem(pattern: str, *, built: bool = False) -> str:
    """Why a pattern is no regular expression of RE2; empty when it is one.

    ``built``: its program is made, too, as by the collector: it may be too large. That takes up to
    seconds and some 10 MiB, so it is for patterns of whoever asks and not for everybody's.
    """
    options = re2.Options()
    options.log_errors = False
    if not built:
        options.max_mem = _HARDLY_ANY
    try:
        re2.compile(pattern, options)
    except UnicodeError:  # half of a surrogate pair
        return "it is no text of Unicode"
    except re2.error as error:
        said = _text_of(error)
        return "" if not built and said.startswith(_TOO_LARGE) else said
    return ""


def _text_of(error: Exception) -> str:
    """RE2 speaks in bytes, which may end in the middle of a letter."""
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
