"""Ask an HTTPS server whether it is ready, and wait until it is."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from mooring_dev.certificates import KeyPair
from mooring_dev.errors import DevError

_POLL = 0.05


def answers_ok(url: str, authority: Path, pair: KeyPair | None = None) -> bool:
    """Whether GET ``url`` is answered by 200 within a second."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(authority))
    if pair is not None:
        context.load_cert_chain(str(pair.certificate), str(pair.key))
    assert parts.hostname is not None
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=1.0, context=context
    )
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until(
    what: str, condition: Callable[[], bool], *, timeout: float, check: Callable[[], None]
) -> None:
    """Poll ``condition``; call ``check`` in between, which raises when waiting is pointless.

    Raises:
        DevError: ``condition`` did not hold within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise DevError(f"Waited {timeout:.0f} s in vain: {what}.")
        time.sleep(_POLL)
