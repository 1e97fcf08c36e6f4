"""Seeing that an apply would change nothing, without asking the API server.

Two things must hold. The manifest is the one applied last (its fingerprint stands in an
annotation of the live object): so we own exactly these fields, and nothing is to be given up. And
the live object still has every value of it: so nobody has changed what is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from mooring.core.kinds import ANNOTATION_FINGERPRINT

#: What tells the items of a list of objects apart, in the order of preference.
_ITEM_KEYS = ("name", "uid", "mountPath", "key", "topologyKey", "containerPort", "port", "type")


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """A short hash of everything in the manifest but what guards a single write."""
    meta = {k: v for k, v in manifest["metadata"].items() if k not in ("resourceVersion", "uid")}
    text = orjson.dumps({**manifest, "metadata": meta}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its fingerprint among the annotations."""
    meta = dict(manifest["metadata"])
    annotations = dict(meta.get("annotations") or {})
    annotations[ANNOTATION_FINGERPRINT] = fingerprint(manifest)
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def is_applied(stamped_manifest: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether applying this stamped manifest over the live object would change nothing."""
    wanted = stamped_manifest["metadata"]["annotations"][ANNOTATION_FINGERPRINT]
    found = (live["metadata"].get("annotations") or {}).get(ANNOTATION_FINGERPRINT)
    if wanted != found:
        return False
    meta = {k: v for k, v in stamped_manifest["metadata"].items() if k != "resourceVersion"}
    return covers(live, {**stamped_manifest, "metadata": meta})


def covers(live: Any, wanted: Any) -> bool:
    """Whether the live value has everything that is wanted; what it has beyond that is not ours.

    Both are plain JSON. The API server leaves out empty lists and objects, so wanting one is met
    by its absence.
    """
    if live == wanted:
        return True
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return live is None and not wanted
        return all(covers(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        if not isinstance(live, list | tuple):
            return live is None and not wanted
        return _covers_list(live, wanted)
    return False


def _covers_list(live: Sequence[Any], wanted: Sequence[Any]) -> bool:
    if len(live) == len(wanted) and all(map(covers, live, wanted)):
        return True
    if not wanted or not all(isinstance(item, dict) for item in (*live, *wanted)):
        return False
    key = next((k for k in _ITEM_KEYS if all(k in item for item in wanted)), None)
    if key is None:
        return False
    return all(
        any(item.get(key) == one[key] and covers(item, one) for item in live) for one in wanted
    )
