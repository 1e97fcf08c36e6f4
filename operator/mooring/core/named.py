"""The fact that a registry has named a revision's model, as its record keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Named:
    """A registry named this model for ``uri``; of all marks the highest ``order`` is the last.

    ``digest`` is what the registry said of the bytes, empty where it said nothing.
    """

    uri: str
    order: int
    digest: str = ""

    def to_text(self) -> str:
        """The annotation's value."""
        value = {"uri": self.uri, "order": self.order, "digest": self.digest}
        return json.dumps(value, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Named:
        """Reads :meth:`to_text`; raises ValueError, KeyError or TypeError for anything else."""
        value = json.loads(text)
        if not (isinstance(value["uri"], str) and isinstance(value["order"], int)):
            raise TypeError("uri is text and order a number")
        return cls(value["uri"], value["order"], str(value.get("digest") or ""))
