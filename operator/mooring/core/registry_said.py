"""What status says of a model that goes by its name in a registry."""

from __future__ import annotations

from mooring.core.situation import Situation


def registry_conditions(situation: Situation) -> dict[str, tuple[str, str, str]]:
    """ModelResolved as (status, reason, message); none for a URI that locates its model itself."""
    found = situation.resolution
    if found is None:
        return {}
    known = f"{found.model['uri']}, at {found.model['source']}" if found.model else ""
    if found.trouble is not None:
        held = f"; what it named last holds: {known}" if known else ""
        said = ("False", found.trouble.reason, f"{found.trouble.message}{held}")
    elif not found.asked:
        held = f"; it named {known} last" if known else ""
        said = ("Unknown", "Asking", f"the model registry is being asked{held}")
    else:
        said = ("True", "Resolved", f"{found.uri} is {known}")
    return {"ModelResolved": said}
