"""Where requests go now, as the router that the spec asks for has been told and has taken it."""

from __future__ import annotations

from dataclasses import replace

from mooring.core import kinds
from mooring.core.allocation import GATEWAY, REPLICAS
from mooring.core.gateway import read_gateway
from mooring.core.observed import Observed
from mooring.core.render.metadata import selector
from mooring.core.routing import Routing, read_routers


def read_routing(observed: Observed) -> Routing:
    """Reads what this router was told, and what has become of that."""
    if observed.router == GATEWAY:
        return read_gateway(observed)
    found = read_routers(observed)
    return replace(found, shared=_shared(observed)) if observed.router == REPLICAS else found


def _shared(observed: Observed) -> bool:
    service = observed.child(kinds.SERVICE, observed.name)
    selected = (service or {}).get("spec", {}).get("selector")
    return bool(selected == selector(observed.name))
