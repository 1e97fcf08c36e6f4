"""Buying an access token from an authority by OAuth 2.0 (RFC 6749), whatever the grant.

What is handed in differs from cloud to cloud; what comes back, and how a refusal is told, does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.web import Web

EARLY = 120
"""Seconds before its end at which a token is renewed."""

_MAX_SAID = 200


def buy_token(
    web: Web, url: str, form: Mapping[str, str], *, whom: str, check: str
) -> tuple[str, float]:
    """A token, and the time at which it ends (seconds since 1970).

    `whom` it is for and what to `check` are the words of a refusal. Raises PermanentFailure when
    there is none to be had, Interruption when the authority stumbles.
    """
    now = time.time()
    answer = web.post_form(url, form)
    answer.refuse_retried(url)
    try:
        held = json.loads(answer.read())
        if answer.status == 200:
            return str(held["access_token"]), now + float(held["expires_in"])
        said = _said(held)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        said = "no answer that makes sense"
    raise PermanentFailure(
        f"{url} gives no token for {whom} (HTTP {answer.status}, {said}): check {check}."
    )


def _said(held: Mapping[str, object]) -> str:
    """The authority's error with the first line of its description; more lines are for support."""
    parts = (str(held.get("error", "")), str(held.get("error_description", "")))
    lines = [part.strip().partition("\n")[0].strip() for part in parts]
    return ": ".join(line for line in lines if line)[:_MAX_SAID] or "no reason"
