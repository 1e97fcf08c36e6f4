"""What Gateways do in a World: they say of its HTTPRoute what one would say."""

from __future__ import annotations

from tests.core.world import World

from mooring.core.kinds import Ref

ROUTE = Ref("HTTPRoute", "fraud")
_YES = (
    {"type": "Accepted", "status": "True", "reason": "Accepted"},
    {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs"},
)


def run_gateways(world: World, *conditions: dict[str, str]) -> None:
    """Lets every Gateway of the HTTPRoute say that it has accepted it as it is now; or, where
    given, these conditions.
    """
    live = world.children[ROUTE]
    generation = live["metadata"]["generation"]
    live["status"] = {
        "parents": [
            {
                "parentRef": parent,
                "controllerName": "example.com/fake",
                "conditions": [{"observedGeneration": generation, **c} for c in conditions or _YES],
            }
            for parent in live["spec"]["parentRefs"]
        ]
    }


def split(world: World) -> dict[str, int]:
    """The weights of the HTTPRoute's backends, by revision, 0 among them."""
    rules = world.children[ROUTE]["spec"]["rules"]
    return {
        ref["name"].removeprefix("fraud-").removesuffix("-gateway"): ref["weight"]
        for ref in rules[-1]["backendRefs"]
    }
