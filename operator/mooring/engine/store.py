"""What the watches and our own writes have told us of the cluster, indexed by ModelDeployment.

Fed by kopf's events, by the answers to our own writes (so the next round sees them without
waiting for the watch) and by the resync. An older version never replaces a newer one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mooring.core import kinds
from mooring.core.kinds import Kind, Ref
from mooring.core.observed import RuntimeSource
from mooring.engine.queue import Key

Json = dict[str, Any]
ObjectKey = tuple[str, str]
_DELETED_REMEMBERED = 10_000


@dataclass(slots=True)
class Writing:
    """A write of ours that is under way, and the events about its object that came meanwhile.

    ``touched`` are the keys to look at once it is over: whom an event concerns that is not the
    write's own echo.
    """

    held: list[Mapping[str, Any]] = field(default_factory=list)
    touched: set[Key] = field(default_factory=set)


class Store:
    """Raw objects by kind, namespace and name. Not thread-safe; it lives on the event loop."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[ObjectKey, Json]] = defaultdict(dict)
        self._children: dict[Key, dict[Ref, Json]] = defaultdict(dict)
        self._requests: dict[Key, dict[str, Json]] = defaultdict(dict)
        self._users: dict[str, set[Key]] = defaultdict(set)
        self._runtime_of: dict[Key, str] = {}
        self._deleted: dict[str, float] = {}
        self._writing: dict[tuple[str, ObjectKey], Writing] = {}

    def put(self, kind: Kind, raw: Mapping[str, Any]) -> set[Key]:
        """Takes an object in; returns the keys to look at, none if it is not news."""
        obj = _pruned(kind, raw)
        meta = obj["metadata"]
        if _version(meta) < self._deleted.get(meta.get("uid", ""), -1.0):
            return set()
        key = (meta.get("namespace", ""), meta["name"])
        old = self._objects[kind.name].get(key)
        if old is not None and not _newer(obj, old):
            return set()
        self._objects[kind.name][key] = obj
        return self._index(kind, key, obj, old)

    @contextmanager
    def writing(self, kind: Kind, namespace: str, name: str) -> Iterator[Writing]:
        """While an object is written: what a watch says of it waits for the answer.

        The watch is often faster than the answer, and would have us look again at what we have
        just made. Put the answer in before leaving: events up to its version say nothing more.
        """
        at = (kind.name, (namespace, name))
        under_way = self._writing[at] = Writing()
        try:
            yield under_way
        finally:
            del self._writing[at]
            for raw in under_way.held:
                under_way.touched |= self.put(kind, raw)

    def absorb(self, kind: Kind, raw: Mapping[str, Any]) -> bool:
        """Whether a reported object needs no further look, or will get it after our own write."""
        meta = raw["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        under_way = self._writing.get((kind.name, key))
        if under_way is not None:
            under_way.held.append(raw)
            return True
        known = self._objects[kind.name].get(key)
        return known is not None and not _newer(raw, known)

    def remove(self, kind: Kind, raw: Mapping[str, Any], *, gone: bool = False) -> set[Key]:
        """Takes an object out, unless one of the same name has replaced it.

        No version of it before this one comes back by a late answer. ``gone`` says that it was
        seen not to exist, so that no version does; a watch says "deleted" as well of an object
        that only lost our label, and that one comes back when the label does.
        """
        meta = raw["metadata"]
        uid = meta.get("uid")
        if uid:
            self._deleted.pop(uid, None)
            self._deleted[uid] = math.inf if gone else _version(meta)
            while len(self._deleted) > _DELETED_REMEMBERED:
                del self._deleted[next(iter(self._deleted))]
        key = (meta.get("namespace", ""), meta["name"])
        old = self._objects[kind.name].get(key)
        if old is None or (uid and old["metadata"].get("uid") != uid):
            return set()
        if not gone and _version(meta) < _version(old["metadata"]):
            return set()  # it lost our label, and has it back by now
        del self._objects[kind.name][key]
        return self._unindex(kind, key, old)

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return self._objects[kind.name].get((namespace, name))

    def versions(self, kind: Kind) -> dict[ObjectKey, tuple[str, str]]:
        """The uid and resourceVersion of every object of a kind, to compare with a list."""
        return {
            key: (obj["metadata"].get("uid", ""), obj["metadata"].get("resourceVersion", ""))
            for key, obj in self._objects[kind.name].items()
        }

    def all_keys(self) -> Iterable[Key]:
        """Every ModelDeployment."""
        return [Key(*key) for key in self._objects[kinds.MODEL_DEPLOYMENT.name]]

    def children(self, key: Key) -> Mapping[Ref, Json]:
        """All objects that carry the label of this ModelDeployment, whoever owns them."""
        return dict(self._children.get(key, {}))

    def requests(self, key: Key) -> dict[str, Json]:
        """The RetrainingRequests that name this ModelDeployment, by name, whoever made them."""
        return dict(self._requests.get(key, {}))

    def runtimes(self, namespace: str) -> dict[str, RuntimeSource]:
        """What a namespace can use, by name: the cluster's, hidden by its own."""
        found = {
            name: RuntimeSource(kinds.CLUSTER_MODEL_RUNTIME.name, name, obj.get("spec") or {})
            for (_, name), obj in self._objects[kinds.CLUSTER_MODEL_RUNTIME.name].items()
        }
        found |= {
            name: RuntimeSource(kinds.MODEL_RUNTIME.name, name, obj.get("spec") or {})
            for (where, name), obj in self._objects[kinds.MODEL_RUNTIME.name].items()
            if where == namespace
        }
        return found

    def count(self, kind: Kind) -> int:
        return len(self._objects[kind.name])

    def _index(self, kind: Kind, key: ObjectKey, obj: Json, old: Json | None) -> set[Key]:
        if kind == kinds.MODEL_DEPLOYMENT:
            found = Key(*key)
            name = ((obj.get("spec") or {}).get("runtime") or {}).get("name", "")
            self._users[self._runtime_of.get(found, "")].discard(found)
            self._runtime_of[found] = name
            self._users[name].add(found)
            return {found}
        if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
            return self._using(key)
        if kind == kinds.RETRAINING_REQUEST:
            return self._index_request(key, obj, old)
        touched = set()
        for version in (old, obj):
            owner = _owner_key(version) if version is not None else None
            if owner is not None:
                self._children[owner].pop(Ref(kind.name, key[1]), None)
                touched.add(owner)
        owner = _owner_key(obj)
        if owner is not None:
            self._children[owner][Ref(kind.name, key[1])] = obj
        return touched

    def _unindex(self, kind: Kind, key: ObjectKey, old: Json) -> set[Key]:
        if kind == kinds.MODEL_DEPLOYMENT:
            found = Key(*key)
            self._users[self._runtime_of.pop(found, "")].discard(found)
            return {found}
        if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
            return self._using(key)
        if kind == kinds.RETRAINING_REQUEST:
            return self._index_request(key, None, old)
        owner = _owner_key(old)
        if owner is None:
            return set()
        self._children[owner].pop(Ref(kind.name, key[1]), None)
        if not self._children[owner]:
            del self._children[owner]
        return {owner}

    def _index_request(self, key: ObjectKey, obj: Json | None, old: Json | None) -> set[Key]:
        """Requests belong to whom they name, which cannot change; labels do not matter."""
        touched = set()
        for version in (old, obj):
            asked = ((version or {}).get("spec") or {}).get("deploymentRef") or {}
            if not asked.get("name"):
                continue
            owner = Key(key[0], str(asked["name"]))
            touched.add(owner)
            if version is not None and version is obj:
                self._requests[owner][key[1]] = version
            else:
                self._requests[owner].pop(key[1], None)
                if not self._requests[owner]:
                    del self._requests[owner]
        return touched

    def _using(self, key: ObjectKey) -> set[Key]:
        namespace, name = key
        return {k for k in self._users.get(name, ()) if not namespace or k.namespace == namespace}


def _owner_key(obj: Mapping[str, Any]) -> Key | None:
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(kinds.LABEL_DEPLOYMENT)
    return Key(meta.get("namespace", ""), name) if name else None


def _newer(new: Mapping[str, Any], old: Json) -> bool:
    """Whether an object of the same name replaces the one that is known.

    Versions of one kind rise over all its objects, so a late answer about one that has been
    replaced since is older than its successor.
    """
    return _version(new["metadata"]) > _version(old["metadata"])


def _version(meta: Mapping[str, Any]) -> float:
    """The resourceVersion as a number; one that is none counts as newest."""
    try:
        return int(meta["resourceVersion"])
    except (KeyError, ValueError):
        return math.inf


def _pruned(kind: Kind, raw: Mapping[str, Any]) -> Json:
    """Without managedFields, which are as large as the object and never looked at."""
    meta = {k: v for k, v in raw["metadata"].items() if k != "managedFields"}
    return {**raw, "apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}
