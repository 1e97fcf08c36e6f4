"""The fact that a revision serves the model of a RetrainingRequest, as its record keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Adopted:
    """``supersedes`` is the hash of the spec.model in whose place this model stands.

    ``over``: spec.model was seen to be another since. It stays so though that one should come
    back: whoever writes an old model into Git means that one.
    """

    request: str
    supersedes: str
    over: bool = False

    def to_text(self) -> str:
        """The annotation's value."""
        value = {"request": self.request, "supersedes": self.supersedes, "over": self.over}
        return json.dumps(value, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Adopted:
        """Reads :meth:`to_text`; raises ValueError, KeyError or TypeError for anything else."""
        value = json.loads(text)
        request, supersedes = value["request"], value["supersedes"]
        if not (isinstance(request, str) and isinstance(supersedes, str)):
            raise TypeError("request and supersedes are texts")
        return cls(request, supersedes, bool(value.get("over")))


def model_hash(model: Mapping[str, Any]) -> str:
    """Names a canonical spec.model."""
    text = json.dumps(model, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
