"""`python -m mooring_collector` is the same program as `mooring-collector`."""

from __future__ import annotations

from mooring_collector.cli import main

if __name__ == "__main__":
    main(prog_name="mooring-collector")
