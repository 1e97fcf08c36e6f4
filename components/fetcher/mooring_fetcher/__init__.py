"""Fetches a model into a pod's volume and proves which bytes it fetched.

The package is both the program of the init container (``mooring-fetcher``) and the one home of
the digest algorithm (:mod:`mooring_fetcher.digest`). The ``mooring digest`` command imports it
from here; the other direction would put the operator into the fetcher's image.
"""

from __future__ import annotations

__version__ = "0.1.0"
