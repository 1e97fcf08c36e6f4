"""What a result must be before anything is served from it.

Whoever may patch the status of a request may deploy what passes here, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Stores in which a folder holds what is under its name and nothing else.
_SCHEMES = ("s3", "gs", "https", "pvc", "az", "abfs", "abfss")
_URI = re.compile(
    r"(?:(?:s3|gs|https|pvc)://[A-Za-z0-9\[][A-Za-z0-9.\[\]:_-]*"
    r"|(?:az|abfss?)://[$a-z0-9][a-z0-9-]*(?:@[a-z0-9.]+)?)(?P<path>/.*)"
)
_MOST_METRICS = 64


class Unacceptable(ValueError):
    """A result that must not be served; the message says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Result:
    """A new model: where it is, what its bytes are, and what training measured."""

    uri: str
    digest: str
    metrics: Mapping[str, str]


def check(raw: Any, prefixes: tuple[str, ...]) -> Result:
    """A result as somebody wrote it; raises Unacceptable."""
    if not isinstance(raw, Mapping):
        raise Unacceptable('the result must be an object such as {"uri": …, "digest": …}')
    uri, digest = raw.get("uri"), raw.get("digest")
    if not isinstance(uri, str) or not uri:
        raise Unacceptable("the result has no uri: it must say where the new model is")
    if not isinstance(digest, str) or not digest:
        raise Unacceptable("the result has no digest: without it anything could be served")
    if not _DIGEST.fullmatch(digest):
        raise Unacceptable(
            f"the result's digest {_shown(digest)} is not sha256: and 64 lower-case hexadecimal "
            "digits: `mooring digest <uri>` prints it"
        )
    _check_location(uri, prefixes)
    return Result(uri, digest, _metrics(raw.get("metrics")))


def read_words(text: str) -> Any:
    """The result in a container's last words: all of them, or the last line that is an object.

    Raises Unacceptable.
    """
    for candidate in (text, *reversed(text.strip().splitlines())):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise Unacceptable(
        'the Job left no result: its container must write {"uri": …, "digest": …} to '
        "/dev/termination-log before it ends"
    )


def own_prefix(uri: str) -> tuple[str, ...]:
    """The folder that a model is in; none for one in a server's image."""
    scheme, _, rest = uri.partition("://")
    if scheme not in _SCHEMES:
        return ()
    host, _, path = rest.partition("/")
    folder = path.rstrip("/").rpartition("/")[0]
    return (f"{scheme}://{host}/{folder}/" if folder else f"{scheme}://{host}/",)


def _check_location(uri: str, prefixes: tuple[str, ...]) -> None:
    found = _URI.fullmatch(uri)
    if found is None or len(uri) > 2048:
        raise Unacceptable(
            f"the result's uri {_shown(uri)} is none that a folder can be allowed of: use "
            "s3://bucket/path, gs://bucket/path, az://container@account/path, https://host/path or "
            "pvc://claim/path"
        )
    if re.search(r"[\s%?#\\]|[^\x21-\x7e]", uri):
        raise Unacceptable(
            f"the result's uri {_shown(uri)} has a blank, '%', '?', '#', a backslash or a letter "
            "beyond ASCII, which could stand for another place: name the model without them"
        )
    segments = found["path"].split("/")[1:]
    if any(s in (".", "..") for s in segments) or "" in segments[:-1]:
        raise Unacceptable(
            f"the result's uri {_shown(uri)} has a segment '.', '..' or '' in its path: write the "
            "path without it"
        )
    if not any(uri.startswith(p) and len(uri) > len(p) for p in prefixes if p.endswith("/")):
        allowed = ", ".join(prefixes) or "none"
        raise Unacceptable(
            f"the result's uri {_shown(uri)} lies under none of the allowed prefixes ({allowed}): "
            "see spec.retraining.allowedPrefixes of the ModelDeployment"
        )


def _metrics(raw: Any) -> dict[str, str]:
    """Numbers as text; what is none is left out, since nothing depends on it."""
    if not isinstance(raw, Mapping):
        return {}
    found = {}
    for name, value in list(raw.items())[:_MOST_METRICS]:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        if isinstance(name, str) and 0 < len(name) <= 253 and len(str(value)) <= 64:
            found[name] = str(value)
    return {name: value for name, value in found.items() if _is_text(name + value)}


def _is_text(text: str) -> bool:
    """Whether it can be sent: JSON also spells half a surrogate pair."""
    return not re.search("[\ud800-\udfff]", text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:119] + "…")
