"""A monitored deployment and its ConfigMap ``<name>-drift``, which carries what is known."""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mooring.adapters.kube import ApiError
from mooring.api import MonitoringSpec, parse_duration
from mooring.api.conditions import DATA_HEALTHY
from mooring.core import kinds
from mooring.core.conditions import Finding
from mooring.core.kinds import Ref
from mooring.core.monitoring import (
    ANNOTATION_PROBLEM,
    ANNOTATION_WINDOW_END,
    REPORT_KEY,
    STATE_KEY,
    Report,
    drift_name,
)
from mooring.core.observed import Manifest
from mooring.core.render.metadata import child_name, manifest
from mooring.engine.lease import LeaseLost
from mooring.engine.queue import Key

if TYPE_CHECKING:  # numpy and scipy: only where something is monitored
    from mooring.core.drift.memory import Memory
    from mooring.core.drift.reference import Reference
    from mooring.core.drift.watch import Watch

log = logging.getLogger(__name__)

#: Deployments that are judged and written at the same time.
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Monitored:
    """One deployment as its resource and its ConfigMap stand now."""

    key: Key
    resource: Manifest
    spec: MonitoringSpec
    child: Manifest | None
    retrained: bool = False

    @property
    def window(self) -> float:
        return parse_duration(self.spec.window).total_seconds()

    @property
    def last_end(self) -> float | None:
        """End of the last window that was taken."""
        if self.child is None:
            return None
        annotations = self.child["metadata"].get("annotations") or {}
        try:
            found = float(annotations[ANNOTATION_WINDOW_END])
        except (KeyError, ValueError):
            return None
        return found if math.isfinite(found) and found >= 0 else None

    @property
    def features(self) -> int:
        return len(self.spec.features or ()) or 50

    def watch(self) -> Watch:
        """What is judged, for the thread that does."""
        from mooring.core.drift.watch import Watch

        traffic = (self.resource.get("spec") or {}).get("traffic") or {}
        stable = stable_revision(self.resource)
        return Watch(self.spec, stable, self.retrained, str(traffic.get("router") or "envoy"))

    def manifest(self, memory: Memory, report: Report) -> Manifest:
        """The ConfigMap as it is to be applied, from the version that was read."""
        trouble = report.conditions.get(DATA_HEALTHY)
        known = trouble is not None and trouble.reason.startswith(("Reference", "Pattern"))
        problem = {ANNOTATION_PROBLEM: trouble.reason} if trouble and known else {}
        found = manifest(
            kinds.CONFIG_MAP,
            drift_name(self.key.name),
            namespace=self.key.namespace,
            deployment=self.key.name,
            uid=self.resource["metadata"].get("uid", ""),
            annotations={ANNOTATION_WINDOW_END: repr(memory.last_end), **problem},
            data={REPORT_KEY: report.to_text()},
            binaryData={STATE_KEY: base64.b64encode(memory.to_bytes()).decode()},
        )
        if self.child is not None:
            found["metadata"]["resourceVersion"] = self.child["metadata"]["resourceVersion"]
        return found

    @property
    def problem(self) -> str | None:
        """What is wrong with the reference, as it was last seen."""
        annotations = (self.child or {"metadata": {}})["metadata"].get("annotations") or {}
        return annotations.get(ANNOTATION_PROBLEM)


def told(one: Monitored) -> Report | None:
    """The report of the last window alone, which needs no numpy; None where there is none."""
    try:
        return Report.from_text(((one.child or {}).get("data") or {})[REPORT_KEY])
    except (KeyError, ValueError):
        return None


def stable_revision(resource: Manifest) -> str | None:
    """The hash of the revision that serves, as status has it."""
    found = ((resource.get("status") or {}).get("stable") or {}).get("revision")
    return str(found) if found else None


def was_retrained(children: Mapping[Ref, Manifest], resource: Manifest) -> bool:
    """Whether the model that serves came of a RetrainingRequest, as its record says."""
    stable = stable_revision(resource)
    if stable is None:
        return False
    name = child_name(resource["metadata"]["name"], stable)
    record = children.get(Ref(kinds.CONTROLLER_REVISION.name, name))
    annotations = ((record or {}).get("metadata") or {}).get("annotations") or {}
    return kinds.ANNOTATION_ADOPTED in annotations


def opened_reference(found: Manifest) -> Reference | Finding:
    """The reference in a ConfigMap, or why there is none; for the thread."""
    from mooring.core.drift.reference import InvalidReference, from_config_map

    try:
        return from_config_map(found)
    except InvalidReference as error:
        return Finding("ReferenceInvalid", f"{error}", "Unknown")


def opened(one: Monitored, start: float) -> tuple[Memory, Report]:
    """What the ConfigMap holds. One that was damaged begins anew where its windows ended."""
    from mooring.core.drift.memory import Memory

    assert one.child is not None
    empty = Report({"state": "NoData"})
    try:
        report = Report.from_text(one.child["data"][REPORT_KEY])
        memory = Memory.from_bytes(base64.b64decode(one.child["binaryData"][STATE_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        log.warning("%s: %s was damaged, and begins anew: %s", one.key, drift_name(""), error)
        return Memory(last_end=start), empty
    return memory, report


def next_end(one: Monitored) -> float | None:
    """When the window after the last one ends."""
    return None if one.last_end is None else end_of(one.last_end, one.window)


def end_of(last_end: float, window: float) -> float:
    """Windows end at multiples of their length since 1970: at full hours."""
    return (math.floor(last_end / window + 1e-9) + 1) * window


async def each(many: Iterable[Monitored], do: Callable[[Monitored], Awaitable[None]]) -> None:
    """Some at a time; what fails for one is that one's alone."""
    allowed = asyncio.Semaphore(AT_ONCE)

    async def guarded(one: Monitored) -> None:
        async with allowed:
            try:
                await do(one)
            except LeaseLost:
                raise
            except ApiError as error:
                log.warning("%s: its data waits: %s", one.key, error)
            except Exception:
                log.exception("%s: judging its data failed", one.key)

    await asyncio.gather(*(guarded(one) for one in many))
