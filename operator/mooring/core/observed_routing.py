"""Where requests go now, as the router that the spec asks for has been told and has taken it."""

from __future__ import annotations

from mooring.core.allocation import GATEWAY
from mooring.core.gateway import read_gateway
from mooring.core.observed import Observed
from mooring.core.routing import Routing, read_routers


def read_routing(observed: Observed) -> Routing:
    """Reads what this router was told, and what has become of that."""
    return read_gateway(observed) if observed.router == GATEWAY else read_routers(observed)
