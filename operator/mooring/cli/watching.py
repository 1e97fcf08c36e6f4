"""Following one ModelDeployment and its pods through dropped connections.

Two threads list, watch, and list again whenever a watch ends; what they see goes through one queue
to whoever waits. Every watch begins with a list, so nothing is missed while nobody was connected.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from mooring.cli.cluster import Cluster, Json
from mooring.cli.failure import UNREACHABLE, Failure
from mooring.cli.snapshot import Snapshot, pod_selector
from mooring.core import kinds
from mooring.core.kinds import Kind

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Selection:
    """What one thread follows."""

    kind: Kind
    labels: str = ""
    fields: str = ""


@dataclass(slots=True)
class _Seen:
    """Messages of the threads: all objects there are, one that changed, or why none is heard."""

    kind: Kind
    objects: list[Json] | None = None
    change: tuple[str, Json] | None = None
    failure: Failure | None = None


@dataclass
class Follower:
    """The latest state of one ModelDeployment; use it as a context manager.

    ``resource`` is None once it is gone. ``lost`` says why the connection is down, while it is, and
    ``pods_unknown`` why pods are not known.
    """

    cluster: Cluster
    name: str
    with_pods: bool = True
    resource: Json | None = None
    lost: str = ""
    pods_unknown: str = ""
    _pods: dict[str, Json] = field(default_factory=dict)
    _seen: queue.Queue[_Seen] = field(default_factory=queue.Queue)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Raises Failure at once when the first look fails: only what worked is waited for."""
        self.resource = self.cluster.get(kinds.MODEL_DEPLOYMENT, self.name)
        self._start(_Selection(kinds.MODEL_DEPLOYMENT, fields=f"metadata.name={self.name}"))
        if self.with_pods:
            self._start(_Selection(kinds.POD, labels=pod_selector(self.name)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    @property
    def snapshot(self) -> Snapshot | None:
        """The state as it is now; None once the ModelDeployment is gone."""
        if self.resource is None:
            return None
        found = sorted(self._pods.values(), key=lambda pod: str(pod["metadata"]["name"]))
        return Snapshot(self.resource, tuple(found), self.pods_unknown)

    def wait(self, seconds: float) -> bool:
        """Takes in what has come; waits for it at most so long. True when something has."""
        try:
            self._take(self._seen.get(timeout=max(0.0, seconds)))
        except queue.Empty:
            return False
        while True:
            try:
                self._take(self._seen.get_nowait())
            except queue.Empty:
                return True

    def until(self, done: Callable[[Follower], bool], seconds: float) -> bool:
        """Waits until ``done``; False when it is not within so many seconds."""
        end = time.monotonic() + seconds
        while not done(self):
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.wait(min(left, 1.0))
        return True

    def _take(self, seen: _Seen) -> None:
        if seen.failure is not None:
            if seen.kind is kinds.POD and seen.failure.code != UNREACHABLE:
                self.pods_unknown = seen.failure.message
            else:
                self.lost = seen.failure.message
            return
        self.lost = ""
        if seen.kind is kinds.POD:
            self._take_pods(seen)
        elif seen.objects is not None:
            self.resource = seen.objects[0] if seen.objects else None
        elif seen.change is not None:
            type_, found = seen.change
            if type_ != "BOOKMARK":
                self.resource = None if type_ == "DELETED" else found

    def _take_pods(self, seen: _Seen) -> None:
        self.pods_unknown = ""
        if seen.objects is not None:
            self._pods = {str(pod["metadata"]["name"]): pod for pod in seen.objects}
        if seen.change is not None:
            type_, found = seen.change
            if type_ == "DELETED":
                self._pods.pop(str(found["metadata"]["name"]), None)
            elif type_ != "BOOKMARK":
                self._pods[str(found["metadata"]["name"])] = found

    def _start(self, selection: _Selection) -> None:
        # A daemon: it may sit in a read when the program ends, and has nothing to put in order.
        threading.Thread(target=self._follow, args=(selection,), daemon=True).start()

    def _follow(self, what: _Selection) -> None:
        pause = _FIRST_PAUSE_SECONDS
        selected: dict[str, Any] = {"labels": what.labels, "fields": what.fields}
        while not self._stop.is_set():
            try:
                found, version = self.cluster.objects(what.kind, **selected)
                self._seen.put(_Seen(what.kind, objects=found))
                pause = _FIRST_PAUSE_SECONDS
                for change in self.cluster.watch(what.kind, version, **selected):
                    self._seen.put(_Seen(what.kind, change=change))
            except Failure as failure:
                self._seen.put(_Seen(what.kind, failure=failure))
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
