"""Development tooling of Mooring: binaries, control planes, clusters, Prometheus, S3."""

from __future__ import annotations

__all__: list[str] = []
