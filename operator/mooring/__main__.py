"""``python -m mooring run``: the operator. Everything else is ``mooring --help``."""

from __future__ import annotations

from mooring.cli import main

if __name__ == "__main__":
    main()
