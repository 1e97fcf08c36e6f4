"""Whether a pattern is one that the collector can match, which is RE2's to say and not Python's.

RE2 is no library of the operator's. So what RE2 alone knows is replaced by something as good before
Python reads the pattern, and what Python alone knows is refused by name. What gets through all the
same ends the collector's start with a sentence.
"""

from __future__ import annotations

import re
import warnings

#: An escape with its argument.
_ESCAPE = r"\\[pP](?:\{\^?\w+\}|[A-Z])|\\x\{[0-9A-Fa-f]+\}|\\."
_IN_CLASS = re.compile(_ESCAPE, re.DOTALL)
#: A class, a quotation, an escape, or the beginning of a special group.
_TOKEN = re.compile(
    r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\\Q.*?(?:\\E|$)"
    rf"|{_ESCAPE}|\(\?[imsU-]+[:)]|\(\?<?.",
    re.DOTALL,
)
_OF_PYTHON_ALONE = ("\\Z", "\\N", "\\u", "\\U", *(f"\\{digit}" for digit in range(1, 10)))
_GROUPS_OF_PYTHON_ALONE = ("(?=", "(?!", "(?<=", "(?<!", "(?#", "(?(", "(?>")


def problem(pattern: str) -> str:
    """Why a pattern is no regular expression of RE2; empty when it is one."""
    try:
        translated = _TOKEN.sub(lambda found: _translated(found[0]), pattern)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(translated)
    except (ValueError, OverflowError, RecursionError, re.error) as error:
        return str(error) or "it is too deep"
    return ""


def _translated(token: str) -> str:
    if token in _OF_PYTHON_ALONE or token in _GROUPS_OF_PYTHON_ALONE:
        raise ValueError(f"RE2 has no {token}")
    if token.startswith("["):
        return "[" + _IN_CLASS.sub(lambda found: _translated(found[0]), token[1:-1]) + "]"
    if token.startswith("\\Q"):
        return re.escape(token[2:].removesuffix("\\E"))
    if token.startswith(("\\p", "\\P")):
        return r"\w" if len(token) > 2 else token
    if token.startswith("\\x{"):
        return "x"
    if token in ("\\z", "\\C"):
        return "x"
    if token.startswith("(?<"):  # (?<name>
        return f"(?P<{token[3:]}"
    if token.startswith("(?") and token[-1] in ":)" and len(token) > 3:
        return "(?:" if token.endswith(":") else ""
    return token
