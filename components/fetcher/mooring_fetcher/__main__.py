"""Lets ``python -m mooring_fetcher`` do what the ``mooring-fetcher`` script does."""

from __future__ import annotations

import sys

from mooring_fetcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
