"""Routers of which no pod has ever started."""

from __future__ import annotations

from mooring.core.traffic import RouterReport


class NoRouters:
    """No router pod has ever started."""

    async def ask(self, namespace: str, deployment: str) -> tuple[RouterReport, ...]:
        return ()

    async def close(self) -> None:
        pass
