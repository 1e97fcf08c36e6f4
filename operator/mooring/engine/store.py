"""What the watches and our own writes have told us of the cluster, indexed by ModelDeployment.

Fed by kopf's events, by the answers to our own writes (so the next round sees them without
waiting for the watch) and by the resync. An older version never replaces a newer one.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from mooring.core import kinds
from mooring.core.kinds import Kind, Ref
from mooring.core.observed import RuntimeSource
from mooring.engine.queue import Key

Json = dict[str, Any]
ObjectKey = tuple[str, str]
_DELETED_REMEMBERED = 10_000
#: Some 8 kB each.
_IN_USE = 1_000


@dataclass(slots=True)
class Writing:
    """A write of ours that is under way, and the events about its object that came meanwhile.

    ``touched`` are the keys to look at once it is over: whom an event concerns that is not the
    write's own echo.
    """

    held: list[Mapping[str, Any]] = field(default_factory=list)
    touched: set[Key] = field(default_factory=set)


class _Held:
    """One version of an object: its text, and its values while it is in use."""

    __slots__ = ("owner", "text", "uid", "values", "version")

    def __init__(self, obj: Json, owner: Key | None) -> None:
        self.uid: str = obj["metadata"].get("uid", "")
        self.version: str = obj["metadata"].get("resourceVersion", "")
        self.owner = owner
        self.values: Json | None = obj
        self.text = b""

    def rest(self) -> None:
        """Keeps the text alone."""
        if not self.text:
            # A copy: orjson's own bytes keep the room that they were written in, twice their size.
            self.text = bytes(memoryview(orjson.dumps(self.values)))
        self.values = None


class Store:
    """Raw objects by kind, namespace and name. Not thread-safe; it lives on the event loop.

    ``in_use`` is how many objects are kept as values. Whoever is given one must not change it.
    """

    def __init__(self, in_use: int = _IN_USE) -> None:
        self._most_in_use = in_use
        self._in_use: dict[int, _Held] = {}
        self._objects: dict[str, dict[ObjectKey, _Held]] = defaultdict(dict)
        self._children: dict[Key, dict[Ref, _Held]] = defaultdict(dict)
        self._requests: dict[Key, dict[str, _Held]] = defaultdict(dict)
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
        key = (sys.intern(meta.get("namespace", "")), meta["name"])
        old = self._objects[kind.name].get(key)
        if old is not None and not _newer(obj, old):
            return set()
        held = self._objects[kind.name][key] = _Held(obj, _owner(kind, obj))
        if old is not None:
            self._in_use.pop(id(old), None)
        self._use(held)
        return self._index(kind, key, held, old)

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
        if old is None or (uid and old.uid != uid):
            return set()
        if not gone and _version(meta) < _number(old.version):
            return set()  # it lost our label, and has it back by now
        del self._objects[kind.name][key]
        self._in_use.pop(id(old), None)
        return self._unindex(kind, key, old)

    def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        held = self._objects[kind.name].get((namespace, name))
        return None if held is None else self._use(held)

    def versions(self, kind: Kind) -> dict[ObjectKey, tuple[str, str]]:
        """The uid and resourceVersion of every object of a kind, to compare with a list."""
        return {key: (held.uid, held.version) for key, held in self._objects[kind.name].items()}

    def all_keys(self) -> Iterable[Key]:
        """Every ModelDeployment."""
        return [Key(*key) for key in self._objects[kinds.MODEL_DEPLOYMENT.name]]

    def children(self, key: Key) -> Mapping[Ref, Json]:
        """All objects that carry the label of this ModelDeployment, whoever owns them."""
        return {ref: self._use(held) for ref, held in self._children.get(key, {}).items()}

    def requests(self, key: Key) -> dict[str, Json]:
        """The RetrainingRequests that name this ModelDeployment, by name, whoever made them."""
        return {name: self._use(held) for name, held in self._requests.get(key, {}).items()}

    def runtimes(self, namespace: str) -> dict[str, RuntimeSource]:
        """What a namespace can use, by name: the cluster's, hidden by its own."""
        found = {}
        for kind in (kinds.CLUSTER_MODEL_RUNTIME, kinds.MODEL_RUNTIME):
            for (where, name), held in self._objects[kind.name].items():
                if where == namespace or not kind.namespaced:
                    spec = self._use(held).get("spec") or {}
                    found[name] = RuntimeSource(kind.name, name, spec)
        return found

    def count(self, kind: Kind) -> int:
        return len(self._objects[kind.name])

    def _use(self, held: _Held) -> Json:
        """The values of an object. Those of the one that was not used for longest go to rest."""
        values = held.values
        if values is None:
            values = held.values = orjson.loads(held.text)
        else:
            self._in_use.pop(id(held), None)
        self._in_use[id(held)] = held
        if len(self._in_use) > self._most_in_use:
            self._in_use.pop(next(iter(self._in_use))).rest()
        return values

    def _index(self, kind: Kind, key: ObjectKey, held: _Held, old: _Held | None) -> set[Key]:
        if kind == kinds.MODEL_DEPLOYMENT:
            found = Key(*key)
            name = ((self._use(held).get("spec") or {}).get("runtime") or {}).get("name", "")
            self._users[self._runtime_of.get(found, "")].discard(found)
            self._runtime_of[found] = name
            self._users[name].add(found)
            return {found}
        if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
            return self._using(key)
        touched = set() if old is None else self._unindex(kind, key, old)
        if held.owner is not None:
            touched.add(held.owner)
            if kind == kinds.RETRAINING_REQUEST:
                self._requests[held.owner][key[1]] = held
            else:
                self._children[held.owner][Ref(kind.name, key[1])] = held
        return touched

    def _unindex(self, kind: Kind, key: ObjectKey, old: _Held) -> set[Key]:
        if kind == kinds.MODEL_DEPLOYMENT:
            found = Key(*key)
            self._users[self._runtime_of.pop(found, "")].discard(found)
            return {found}
        if kind in (kinds.MODEL_RUNTIME, kinds.CLUSTER_MODEL_RUNTIME):
            return self._using(key)
        owner = old.owner
        if owner is None:
            return set()
        if kind == kinds.RETRAINING_REQUEST:
            self._requests[owner].pop(key[1], None)
            if not self._requests[owner]:
                del self._requests[owner]
        else:
            self._children[owner].pop(Ref(kind.name, key[1]), None)
            if not self._children[owner]:
                del self._children[owner]
        return {owner}

    def _using(self, key: ObjectKey) -> set[Key]:
        namespace, name = key
        return {k for k in self._users.get(name, ()) if not namespace or k.namespace == namespace}


def _owner(kind: Kind, obj: Json) -> Key | None:
    """The ModelDeployment that an object belongs to: a child by its label, a RetrainingRequest by
    the name in its spec, which cannot change; its labels do not matter.
    """
    if kind == kinds.RETRAINING_REQUEST:
        name = str(((obj.get("spec") or {}).get("deploymentRef") or {}).get("name") or "")
    else:
        name = (obj["metadata"].get("labels") or {}).get(kinds.LABEL_DEPLOYMENT) or ""
    namespace = str(obj["metadata"].get("namespace", ""))
    return Key(sys.intern(namespace), sys.intern(name)) if name else None


def _newer(new: Mapping[str, Any], old: _Held) -> bool:
    """Whether an object of the same name replaces the one that is known.

    Versions of one kind rise over all its objects, so a late answer about one that has been
    replaced since is older than its successor.
    """
    return _version(new["metadata"]) > _number(old.version)


def _version(meta: Mapping[str, Any]) -> float:
    return _number(meta.get("resourceVersion", ""))


def _number(version: str) -> float:
    """The resourceVersion as a number; one that is none counts as newest."""
    try:
        return int(version)
    except (TypeError, ValueError):
        return math.inf


def _pruned(kind: Kind, raw: Mapping[str, Any]) -> Json:
    """Without managedFields, which are as large as the object and never looked at."""
    meta = {k: v for k, v in raw["metadata"].items() if k != "managedFields"}
    return {**raw, "apiVersion": kind.api_version, "kind": kind.name, "metadata": meta}
