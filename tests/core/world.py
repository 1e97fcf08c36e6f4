"""A cluster as a few dictionaries and a clock, on which plans are carried out.

It does what an API server would do with a plan, and no more: store, count versions and
generations, refuse what it is told to refuse, and keep what another manager owns. Pods come to be
when a test says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.core.given import ONNX_RUNTIME, Interrupted, copied, spec
from tests.core.played import played

from mooring.core import kinds
from mooring.core.examination import Evidence, Examination
from mooring.core.fingerprint import is_applied
from mooring.core.kinds import Ref
from mooring.core.objects import Deletion, owned
from mooring.core.observed import (
    Observed,
    RenderSettings,
    RuntimeSource,
    revisions_to_inspect,
    routers_to_ask,
)
from mooring.core.plan import Plan, decide
from mooring.core.pods import PodReport
from mooring.core.registry import Answer
from mooring.core.render.router.table import read_table
from mooring.core.retrain.facts import JobFacts, RetrainingFacts
from mooring.core.revision import History, read_history
from mooring.core.traffic import RouterReport

#: What World.routed answers where the ratio of pods is the weight.
EVERY_REVISION = "every revision"


@dataclass
class World:
    """One ModelDeployment called ``fraud`` and all that is made for it."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    resource: dict[str, Any] = field(default_factory=dict)
    children: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, tuple[PodReport, ...]] = field(default_factory=dict)
    runtimes: dict[str, RuntimeSource] = field(default_factory=dict)
    settings: RenderSettings = field(default_factory=RenderSettings)
    refuses: dict[Ref, str] = field(default_factory=dict)
    foreign: dict[Ref, str] = field(default_factory=dict)
    failures: dict[Ref, str] = field(default_factory=dict)
    taken: dict[Ref, str] = field(default_factory=dict)
    writes_left: int | None = None
    stale: dict[str, dict[Ref, dict[str, Any]]] = field(default_factory=dict)
    answers_lost: bool = False
    doubting: bool = False
    connected_since: datetime | None = None
    writes: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    version: int = 100
    routers: dict[str, RouterReport] = field(default_factory=dict)
    routers_follow: bool = True
    examination: Examination | None = None
    evidence: Evidence | None = None
    unserved: frozenset[str] = frozenset()
    retraining: RetrainingFacts = field(default_factory=RetrainingFacts)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    registry: Answer | None = None
    decided: tuple[Observed | None, Plan] = (None, Plan())

    @classmethod
    def with_spec(cls, wanted: dict[str, Any] | None = None, **changes: Any) -> World:
        world = cls()
        world.runtimes["onnx"] = RuntimeSource("ClusterModelRuntime", "onnx", ONNX_RUNTIME)
        world.resource = {
            "apiVersion": "mooring.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "fraud", "namespace": "shop", "uid": "uid-1", "generation": 1,
                         "resourceVersion": "1", "annotations": {}},
            "spec": wanted or spec(**changes),
        }  # fmt: skip
        return world

    # what people do -------------------------------------------------------------------------

    def edit(self, **changes: Any) -> None:
        """Changes the spec, as ``kubectl apply`` does."""
        self.resource["spec"] = {**self.resource["spec"], **changes}
        self.resource["metadata"]["generation"] += 1

    def model(self, uri: str) -> None:
        self.edit(model={"uri": uri})

    def act(self, text: str) -> None:
        self.resource["metadata"]["annotations"][kinds.ANNOTATION_ACTION] = text

    def wait(self, **span: float) -> None:
        self.now += timedelta(**span)

    # what the operator does -----------------------------------------------------------------

    def observed(self) -> Observed:
        children = {
            ref: copied(child)
            for ref, child in self.seen().items()
            if owned(child, self.resource["metadata"]["uid"])
        }
        inspected = revisions_to_inspect(children)
        return Observed(
            now=self.now,
            resource=copied(self.resource),
            children=children,
            runtimes=dict(self.runtimes),
            pods={r: pods for r, pods in self.pods.items() if r in inspected},
            failures=dict(self.failures),
            foreign=dict(self.taken),
            connected_since=self.connected_since,
            unserved=self.unserved,
            settings=self.settings,
            routers=self._reports() if routers_to_ask(self.resource, children) else None,
            evidence=self.evidence,
            registry=self.registry,
            retraining=replace(
                self.retraining, requests=tuple(copied(r) for r in self.requests.values())
            ),
        )

    def _reports(self) -> tuple[RouterReport, ...]:
        """What the router pods answer: the version that they were told of, once it is there."""
        live = self.children.get(Ref("ConfigMap", "fraud-router"))
        if live is not None and self.routers_follow:
            version = live["metadata"]["annotations"][kinds.ANNOTATION_VERSION]
            self.routers = {
                name: replace(
                    r, taken=version if version == r.told else r.taken, endpoints=self._endpoints()
                )
                for name, r in self.routers.items()
            }
        return tuple(self.routers.values())

    def _endpoints(self) -> dict[str, int]:
        """How many pods of each revision answer."""
        return {
            r: int((self.deployment(r).get("status") or {}).get("availableReplicas", 0))
            for r in self.revisions()
        }

    def seen(self) -> dict[Ref, dict[str, Any]]:
        """The children as the operator knows them: some kinds as they were a while ago."""
        fresh = {ref: child for ref, child in self.children.items() if ref.kind not in self.stale}
        return fresh | {ref: child for old in self.stale.values() for ref, child in old.items()}

    def stop_watching(self, kind: str) -> None:
        """From now on the operator hears of this kind by the answers to its own writes only."""
        self.stale[kind] = {r: copied(c) for r, c in self.children.items() if r.kind == kind}

    def resync(self) -> None:
        """The operator hears of everything again."""
        self.stale.clear()
        self.answers_lost = False

    def round(self, *, kill_after: int | None = None) -> Plan:
        """One decision, carried out; or only as far as the first few writes."""
        observed = self.observed()
        if self.doubting or self.decided[0] != observed:  # of the same a function decides the same
            self.decided = (observed, decide(observed))
        plan = self.decided[1]
        if self.doubting:
            assert observed == self.observed(), "decide has changed its input"
            assert decide(self.observed()) == plan, "decide is not a function"
        self.examination = plan.examination
        self.writes_left = kill_after
        try:
            self._carry_out(plan)
        except Interrupted:
            self.failures, self.taken = {}, {}
        finally:
            self.writes_left = None
        return plan

    def _carry_out(self, plan: Plan) -> None:
        if plan.status is not None and plan.status != self.resource.get("status"):
            self._written("status")
            self.resource["status"] = copied(plan.status)
        self.told += [f"{event.type} {event.reason}: {event.message}" for event in plan.events]
        self.failures, self.taken = {}, {}
        for manifest in plan.apply:
            ref = Ref(manifest["kind"], manifest["metadata"]["name"])
            if ref in self.foreign:
                self.taken[ref] = self.foreign[ref]
            elif ref in self.refuses:
                self.failures[ref] = self.refuses[ref]
            else:
                self._apply(manifest)
            if ref.kind == "ControllerRevision" and (self.failures or self.taken):
                return
        self._retrain(plan)
        self._touch(plan)
        for ref, count in plan.scale:
            live, known = self.children.get(ref), self.seen().get(ref)
            if known is None or known["spec"].get("replicas") == count:
                continue
            if live is None or live["metadata"]["uid"] != known["metadata"]["uid"]:
                self._look_closer(ref)
                continue
            self._written(f"scale {ref} to {count}")
            live["spec"]["replicas"] = count
            self._changed(live)
            self._answer(ref)
        for deletion in () if self.failures or self.taken else plan.delete:
            self._delete(deletion)

    def _delete(self, deletion: Deletion) -> None:
        self._written(f"delete {deletion.ref}")
        if deletion.ref.kind == "RetrainingRequest":
            request = self.requests.pop(deletion.ref.name)
            assert request["metadata"]["uid"] == deletion.uid
            return
        live = self.children.get(deletion.ref)
        if live is not None and live["metadata"]["uid"] == deletion.uid:
            self.remove(deletion.ref)

    def _touch(self, plan: Plan) -> None:
        for touch in plan.touch:
            if touch.pod in self.routers:
                self._written(f"touch {touch.pod}")
                self.routers[touch.pod] = replace(self.routers[touch.pod], told=touch.version)

    def _retrain(self, plan: Plan) -> None:
        for manifest in plan.create:
            ref = Ref(manifest["kind"], manifest["metadata"]["name"])
            if ref in self.made:
                continue
            self._written(f"create {ref}")
            if ref.kind == "RetrainingRequest":
                self.request(ref.name, manifest["spec"], copied(manifest["metadata"]))
            self.made[ref] = copied(manifest)
            if ref.kind == "Job":
                jobs = {**self.retraining.jobs, ref.name: JobFacts("uid", started=1)}
                self.retraining = replace(self.retraining, jobs=jobs)
        for wanted in plan.request_statuses:
            live = self.requests.get(wanted.name)
            if live is None:
                continue
            assert live["metadata"]["resourceVersion"] == wanted.version
            assert live.get("status", {}) != wanted.status, "a status that changes nothing"
            self._written(f"status of {wanted.name}")
            live["status"] = copied(wanted.status)
            self._new_version(live)

    def request(
        self, name: str, wanted: dict[str, Any], meta: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """A RetrainingRequest comes to be."""
        live = {
            "metadata": {
                **(meta or {}),
                "name": name,
                "uid": f"uid-{name}",
                "generation": 1,
                "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "spec": copied(wanted),
        }
        self._new_version(live)
        self.requests[name] = live
        return live

    def patch_request(self, name: str, **status: Any) -> None:
        """Whoever trains writes into a request's status."""
        live = self.requests[name]
        live["status"] = {**live.get("status", {}), **status}
        self._new_version(live)

    def settle(self, rounds: int = 10) -> Plan:
        """Rounds until one writes nothing; fails when that never happens."""
        for _ in range(rounds):
            before = len(self.writes)
            plan = self.round()
            if len(self.writes) == before:
                return plan
        raise AssertionError(f"does not settle: {self.writes[-10:]}")

    def follow(self) -> None:
        """A decision, and what follows at once where it wrote more than status.

        For the many looks of a long way, of which each decides on what the one before wrote; its
        end is to settle.
        """
        before = len(self.writes)
        self.round()
        if self.writes[before:] not in ([], ["status"]):
            self.settle(40)

    def _written(self, what: str) -> None:
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Interrupted
            self.writes_left -= 1
        self.writes.append(what)

    def _apply(self, manifest: dict[str, Any]) -> None:
        ref = Ref(manifest["kind"], manifest["metadata"]["name"])
        live, known = self.children.get(ref), self.seen().get(ref)
        if known is not None and is_applied(manifest, known):
            return
        wanted = copied(manifest)
        guard = wanted["metadata"].pop("resourceVersion", None)
        version = live["metadata"]["resourceVersion"] if live is not None else None
        if (known is None and live is not None) or guard not in (None, version):
            assert ref.kind in self.stale, f"{ref} is not what was decided on"
            self._look_closer(ref)
        self._written(f"{'create' if live is None else 'update'} {ref}")
        if live is None:
            wanted["metadata"] |= {"uid": f"uid-{ref.name}-{self.version}", "generation": 0}
            if ref.kind == "Deployment":
                wanted["spec"].setdefault("replicas", 1)
            self.children[ref] = wanted
            self._changed(wanted)
            self._answer(ref)
            return
        for frozen in ("data",) if ref.kind == "ControllerRevision" else ():
            assert live[frozen] == wanted[frozen], f"{frozen} of {ref} never changes"
        if ref.kind == "Deployment":
            assert live["spec"]["selector"] == wanted["spec"]["selector"]
            wanted["spec"].setdefault("replicas", live["spec"]["replicas"])
        kept = {k: live["metadata"][k] for k in ("uid", "generation", "resourceVersion")}
        same = live.get("spec") == wanted.get("spec")
        live.update(wanted)
        live["metadata"] = {**wanted["metadata"], **kept}
        self._changed(live)
        if same and ref.kind == "HTTPRoute":  # a Deployment's annotations make a generation
            live["metadata"]["generation"] -= 1
        self._answer(ref)

    def _answer(self, ref: Ref) -> None:
        """The operator knows what it has written, unless the answer is lost."""
        if ref.kind in self.stale:
            if self.answers_lost:
                raise Interrupted
            self.stale[ref.kind][ref] = copied(self.children[ref])

    def _look_closer(self, ref: Ref) -> None:
        """A write was refused since the object is not as it was seen: it is read, and that is it
        for this round.
        """
        self.stale[ref.kind].pop(ref, None)
        if ref in self.children:
            self.stale[ref.kind][ref] = copied(self.children[ref])
        raise Interrupted

    def _new_version(self, live: dict[str, Any]) -> None:
        self.version += 1
        live["metadata"]["resourceVersion"] = str(self.version)

    def _changed(self, live: dict[str, Any]) -> None:
        self._new_version(live)
        live["metadata"]["generation"] += 1

    # what the rest of the cluster does ------------------------------------------------------

    def remove(self, ref: Ref) -> None:
        """Somebody deletes an object."""
        del self.children[ref]
        if ref.kind == "Deployment":
            self.pods.pop(ref.name.removeprefix("fraud-"), None)

    def autoscale(self, revision: str, count: int) -> None:
        """An autoscaler changes the number of pods."""
        live = self.deployment(revision)
        live["spec"]["replicas"] = count
        self._changed(live)

    def lose_status(self) -> None:
        """As a backup restores an object: the status subresource is not part of it."""
        self.resource.pop("status", None)

    def run_pods(self, revision: str, ready: int | None = None, digest: str | None = "d1") -> None:
        """Lets ``ready`` pods of a revision be available (all, unless said)."""
        live = self.deployment(revision)
        wanted = int(live["spec"]["replicas"])
        count = wanted if ready is None else min(ready, wanted)
        live["status"] = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": wanted,
            "readyReplicas": count,
            "availableReplicas": count,
        }
        found = f"sha256:{digest}" if digest else None
        self.pods[revision] = tuple(
            PodReport(f"pod-{i}", i < count, "" if i < count else "Starting", digest=found)
            for i in range(wanted)
        )

    def run_routers(self, count: int = 2) -> None:
        """Lets so many router pods be ready; each starts with the files as they are now."""
        live = self.children[Ref("Deployment", "fraud-router")]
        live["status"] = {
            "observedGeneration": live["metadata"]["generation"],
            "replicas": count,
            "readyReplicas": count,
            "availableReplicas": count,
        }
        version = self.children[Ref("ConfigMap", "fraud-router")]["metadata"]["annotations"][
            kinds.ANNOTATION_VERSION
        ]
        names = [f"fraud-router-{i}" for i in range(count)]
        self.routers = {
            name: self.routers.get(name) or RouterReport(name, f"uid-{name}", True, version)
            for name in names
        }

    def fail_pods(
        self, revision: str, reason: str, message: str, *, permanent: bool = False
    ) -> None:
        """Lets no pod of a revision become ready, for this reason."""
        self.run_pods(revision, ready=0, digest=None)
        self.pods[revision] = tuple(
            replace(pod, reason=reason, message=message, permanent=permanent)
            for pod in self.pods[revision]
        )

    def serve(self) -> str:
        """Brings whatever rolls out to its end; returns the stable revision."""
        # A test that replaces code of the operator does so in a world that has begun.
        return self._serve() if self.writes else self._begin()

    def _serve(self) -> str:
        for _ in range(8):
            self.settle()
            before = len(self.writes)
            for revision in self.revisions():
                self.run_pods(revision)
            if Ref("Deployment", "fraud-router") in self.children:
                self.run_routers()
            self.round()
            if len(self.writes) == before:
                break
        self.wait(minutes=1)
        self.settle()
        stable = self.history.stable
        assert stable is not None
        return stable.hash

    _begin = played(_serve)

    # what a test looks at -------------------------------------------------------------------

    @property
    def history(self) -> History:
        return read_history(self.children)

    def deployment(self, revision: str) -> dict[str, Any]:
        return self.children[Ref("Deployment", f"fraud-{revision}")]

    def revisions(self) -> list[str]:
        """The revisions that have a Deployment."""
        return sorted(
            r.name.removeprefix("fraud-")
            for r, child in self.children.items()
            if r.kind == "Deployment" and kinds.LABEL_REVISION in child["metadata"]["labels"]
        )

    def route(self) -> dict[str, int]:
        """The weights that stand in the routers' configuration, by revision."""
        found = read_table(self.children[Ref("ConfigMap", "fraud-router")])
        assert found is not None
        return dict(found[0].route.weights)

    def halved(self) -> list[str]:
        """The revisions whose traffic the routers divide into halves."""
        found = read_table(self.children[Ref("ConfigMap", "fraud-router")])
        assert found is not None
        return [backend.revision for backend in found[0].backends if backend.halved]

    def routed(self) -> str:
        service = self.children[Ref("Service", "fraud")]
        return str(service["spec"]["selector"].get("mooring.dev/revision", EVERY_REVISION))

    def counts(self) -> dict[str, int]:
        """The pods that each Deployment was told to have."""
        return {r: int(self.deployment(r)["spec"]["replicas"]) for r in self.revisions()}

    def condition(self, kind: str) -> dict[str, Any]:
        found = [c for c in self.resource["status"]["conditions"] if c["type"] == kind]
        assert len(found) == 1
        return dict(found[0])

    def reason(self, kind: str) -> str:
        """The condition's reason while it is abnormal; empty while all is well."""
        found = self.condition(kind)
        well = "True" if kind == "Ready" else "False"
        return "" if found["status"] == well else str(found["reason"])

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.resource["status"])
