"""An API server in memory, for rounds of the reconciler: it stores, merges, refuses and counts."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from tests.engine.objects import Json

from mooring.adapters.kube import ApiError
from mooring.core import kinds
from mooring.core.kinds import Kind, Ref


def _merged(live: Any, patch: Any) -> Any:
    """A merge patch as the API server carries it out (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    base = live if isinstance(live, dict) else {}
    changed = {key: _merged(base.get(key), value) for key, value in patch.items()}
    return {key: value for key, value in {**base, **changed}.items() if value is not None}


class Server:
    """Stores what is applied; ``normalise`` changes what it stores, as admission does."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Json] = {}
        self.calls: list[str] = []
        self.errors: dict[str, ApiError] = {}
        self.normalise: Any = lambda obj: None
        self.watched: Any = lambda kind, obj: None
        self.versions = itertools.count(100)

    def _raise(self, call: str) -> None:
        self.calls.append(call)
        for pattern, error in self.errors.items():
            if call.startswith(pattern):
                raise error

    async def apply(
        self, kind: Kind, manifest: Json, *, manager: str = "mooring", create_only: bool = False
    ) -> Json:
        ref = Ref(kind.name, manifest["metadata"]["name"])
        self._raise(f"{'scale' if manager == 'mooring-replicas' else 'apply'} {ref}")
        live = self.objects.get(ref)
        if live is not None and create_only:
            raise ApiError(409, "Conflict", "exists")
        found = copy.deepcopy(manifest)
        if manager == "mooring-replicas":
            assert live is not None
            if manifest["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "another version")
            found = {**live, "spec": {**live["spec"], **manifest["spec"]}}
        elif kind is kinds.DEPLOYMENT:
            replicas = live["spec"]["replicas"] if live else 1
            found["spec"]["replicas"] = replicas
        version = str(next(self.versions))
        uid = live["metadata"]["uid"] if live else f"uid-{ref}-{version}"
        found["metadata"] = {**found["metadata"], "uid": uid, "resourceVersion": version}
        self.normalise(found)
        self.objects[ref] = found
        return copy.deepcopy(found)

    async def create(self, kind: Kind, namespace: str, manifest: Json) -> Json:
        ref = Ref(kind.name, manifest["metadata"]["name"])
        self._raise(f"create {ref}")
        if ref in self.objects:
            raise ApiError(409, "AlreadyExists", "exists")
        version = str(next(self.versions))
        found = copy.deepcopy(manifest)
        found["metadata"] |= {"uid": f"uid-{ref}-{version}", "resourceVersion": version}
        self.objects[ref] = found
        return copy.deepcopy(found)

    async def patch_status(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        self._raise("status")
        ref = Ref(kind.name, name)
        live = self.objects[ref]
        assert body["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        live = copy.deepcopy(live)
        live["status"] = _merged(live.get("status"), body["status"])
        live["metadata"]["resourceVersion"] = str(next(self.versions))
        self.objects[ref] = live
        return copy.deepcopy(live)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        ref = Ref(kind.name, name)
        self._raise(f"patch {ref}")
        live = copy.deepcopy(self.objects[ref])
        live["spec"] = {**live["spec"], **body["spec"]}
        live["metadata"]["resourceVersion"] = str(next(self.versions))
        self.objects[ref] = live
        return copy.deepcopy(live)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        self.calls.append(f"get {kind.name} {name}")
        return copy.deepcopy(self.objects.get(Ref(kind.name, name)))

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        self._raise(f"delete {kind.name} {name}")
        live = self.objects[Ref(kind.name, name)]
        if version not in (None, live["metadata"]["resourceVersion"]):
            raise ApiError(409, "Conflict", "another version")
        self.watched(kind, self.objects.pop(Ref(kind.name, name)))

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith(("get", "list"))]

    async def list(self, kind: Kind, namespace: str | None, **_: Any) -> Any:
        self.calls.append(f"list {kind.name}")
        yield []
