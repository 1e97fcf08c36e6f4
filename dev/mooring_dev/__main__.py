"""Entry point of ``python -m mooring_dev``."""

from __future__ import annotations

from mooring_dev.cli import main

if __name__ == "__main__":
    main()
