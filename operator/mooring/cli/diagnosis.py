"""Why a ModelDeployment is not Ready, and what helps: a pure function of what the cluster says.

The operator has said it all in conditions, events and the pods' last words; this puts it in order,
leaves out what repeats, and adds the next command to type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mooring.cli.cluster import Json
from mooring.cli.estimates import ongoing, readings, sentence, told
from mooring.cli.snapshot import ROLES, Snapshot, leaves
from mooring.cli.words import clock, moment, plain
from mooring.core import kinds, pods

_EVENTS_SHOWN = 5
_PODS_SHOWN = 5
#: A new object has no status for a moment; after this time nobody works on it.
_UNTOUCHED = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands in the way, in one word and one sentence; ``about`` whom it is."""

    about: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``headline`` is the answer in a sentence; ``next`` what to do, the most likely first."""

    ready: bool
    headline: str
    findings: tuple[Finding, ...]
    events: tuple[str, ...]
    next: tuple[str, ...]


def diagnose(snapshot: Snapshot, events: Sequence[Json], now: datetime) -> Diagnosis:
    """Walks the generation, the conditions, the rollout, the pods and the events."""
    findings = [*_operator(snapshot, now), *_conditions(snapshot), *_pods(snapshot)]
    ready = snapshot.holds("Ready")
    if all(finding.about in _OF_DATA for finding in findings) and not snapshot.unseen:
        findings += [*_retraining(snapshot), *_rollout(snapshot), *_analysis(snapshot)]
    return Diagnosis(
        ready=ready,
        headline=_headline(snapshot, ready),
        findings=tuple(findings),
        events=tuple(_events(events, now)),
        next=tuple(_next(snapshot, findings, ready)),
    )


def _headline(snapshot: Snapshot, ready: bool) -> str:
    found = snapshot.condition("Ready")
    if not found:
        return f"Nothing is known about {snapshot.name}: it has no Ready condition."
    why = f"{plain(found.get('reason'))}: {plain(found.get('message'))}"
    if ready:
        return f"{snapshot.name} is Ready: {plain(found.get('message'))}."
    if found.get("status") == "Unknown":
        return f"Whether {snapshot.name} is Ready is not known: {why}."
    return f"{snapshot.name} is not Ready: {why}."


def _operator(snapshot: Snapshot, now: datetime) -> Iterable[Finding]:
    created = moment(snapshot.resource["metadata"].get("creationTimestamp"))
    if not snapshot.status:
        if created is not None and now - created < _UNTOUCHED:
            yield Finding("operator", "NotLookedAt", "it was made a moment ago")
        else:
            yield Finding("operator", "NotLookedAt", "no operator has ever written its status")
    elif snapshot.unseen:
        yield Finding(
            "operator", "Behind", "the operator has not looked at the newest change of spec yet"
        )


def _conditions(snapshot: Snapshot) -> Iterable[Finding]:
    """What is not as it should be, but for Ready: that is the headline, and is not said twice."""
    said = {_not_ready(snapshot)}
    for condition in snapshot.status.get("conditions") or ():
        kind, status = plain(condition.get("type")), plain(condition.get("status"))
        normal = "True" if kind == "DataHealthy" else "False"
        if status == normal or kind in ("Ready", "Reconciling", "RollingOut"):
            continue
        reason = plain(condition.get("reason"))
        if reason not in said:
            said.add(reason)
            yield Finding(kind, reason, plain(condition.get("message")))


def _not_ready(snapshot: Snapshot) -> str:
    """The reason for which it is not Ready; empty when it is."""
    return "" if snapshot.holds("Ready") else plain(snapshot.condition("Ready").get("reason"))


def _retraining(snapshot: Snapshot) -> Iterable[Finding]:
    """A request that is in flight, or whose model is rolling out: what drift is waiting for."""
    found, adopted = snapshot.part("retraining"), snapshot.part("adoptedModel")
    request = plain(found.get("request"))
    if found.get("inFlight"):
        yield Finding("retraining", "InFlight", f"RetrainingRequest {request} is not finished yet")
    elif adopted and adopted.get("revision") == snapshot.part("candidate").get("revision"):
        made = f"revision {plain(adopted['revision'])}, which is rolling out"
        yield Finding("retraining", "RollingOut", f"RetrainingRequest {request} led to {made}")


def _rollout(snapshot: Snapshot) -> Iterable[Finding]:
    """A rollout that waits is no fault; but who asks wants to know that it does."""
    rollout = snapshot.part("rollout")
    waiting = plain(rollout.get("waitingFor"))
    if waiting:
        stage = plain(rollout.get("stage")) or plain(snapshot.status.get("phase")) or "RollingOut"
        yield Finding("rollout", stage, f"waits for {waiting}")


def _analysis(snapshot: Snapshot) -> Iterable[Finding]:
    """What is missing for a decision, with the numbers; a verdict that decided needs no advice."""
    analysis = snapshot.part("analysis")
    verdict = plain(analysis.get("verdict"))
    if verdict in ("", "Pass") or not ongoing(snapshot.status):
        return
    why = told(snapshot)
    if why:
        yield Finding("analysis", verdict, why)
    for text in analysis.get("blocked") or ():
        yield Finding("analysis", verdict, f"kept from passing: {plain(text)}")
    for reading in readings(snapshot):
        if reading.verdict != "Pass":
            yield Finding(f"metric {reading.name}", reading.verdict, sentence(reading))


def _pods(snapshot: Snapshot) -> Iterable[Finding]:
    troubled = unready(snapshot)
    for pod in troubled[:_PODS_SHOWN]:
        found = pods.report(pod)
        words = plain(found.message) or "no container has said anything yet"
        if found.restarts:
            words += f" (restarted {found.restarts} times)"
        yield Finding(f"pod {found.name}", found.reason or "NotReady", words)
    if snapshot.pods_unknown:
        yield Finding("pods", "NotShown", snapshot.pods_unknown)


def unready(snapshot: Snapshot) -> list[Json]:
    """The pods of live revisions and of the router that are not ready, those in trouble first."""
    live = {str(snapshot.part(role).get("revision")) for role in ROLES if snapshot.part(role)}
    serving = [pod for revision in sorted(live) for pod in snapshot.pods_of(revision)]
    found = [
        pod
        for pod in (*serving, *snapshot.router_pods)
        if not pods.report(pod).ready and not leaves(pod)
    ]
    return sorted(found, key=lambda p: pods.report(p).reason == "Starting")


def _events(events: Sequence[Json], now: datetime) -> Iterable[str]:
    """The latest warnings, the newest last, with how often each came."""
    warnings = [event for event in events if event.get("type") == "Warning"]
    warnings.sort(key=_when)
    for event in warnings[-_EVENTS_SHOWN:]:
        about = event.get("involvedObject") or {}
        own = about.get("kind") == kinds.MODEL_DEPLOYMENT.name
        whom = "" if own else f"{plain(about.get('name'))}: "
        often = f" ({event['count']} times)" if (event.get("count") or 1) > 1 else ""
        yield (
            f"{clock(_when(event), now)} {whom}{plain(event.get('reason'))}: "
            f"{plain(event.get('message'))}{often}"
        )


def _when(event: Json) -> str:
    found = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    return str(found or "")


def _next(snapshot: Snapshot, findings: Sequence[Finding], ready: bool) -> list[str]:
    """What to do about each reason, once; the last resort where no reason is known."""
    where = f"{snapshot.name} -n {snapshot.namespace}"
    troubled = unready(snapshot)
    values = {
        "name": where,
        "namespace": snapshot.namespace,
        "pod": f"{troubled[0]['metadata']['name'] if troubled else 'POD'} -n {snapshot.namespace}",
        "routers": f"-n {snapshot.namespace} -l {kinds.LABEL_INSTANCE}={snapshot.name},"
        f"{kinds.LABEL_COMPONENT}={kinds.COMPONENT_ROUTER}",
        "uri": plain(snapshot.resource["spec"]["model"]["uri"]),
    }
    retrained = any(finding.about == "retraining" for finding in findings)
    reasons = (
        _not_ready(snapshot),
        *(
            _ADVISED_AS.get(finding.about, finding.reason)
            for finding in findings
            # What is being retrained already need not be retrained.
            if not (retrained and finding.reason in ("Drifted", "ConceptDrifted"))
        ),
        plain(snapshot.status.get("phase")),
    )
    steps = [_ADVICE[reason] for reason in reasons if reason in _ADVICE]
    if not steps and (findings or not ready):
        steps = [_LAST_RESORT]
    return [step.format(**values) for step in dict.fromkeys(steps)]


#: Conditions that say something of the data, and nothing of whether and how the model is served.
_OF_DATA = ("DataHealthy", "Drifted", "RetrainIneffective")
#: Reasons of DataHealthy: the rule that the data breaks.
_BROKEN = (
    "Schema", "Missing", "NonFinite", "OutOfRange", "UnseenCategory", "Range", "Domain", "Pattern",
    "Type", "Constant",
)  # fmt: skip
#: Findings for which there is one advice, whatever their reason.
_ADVISED_AS = {"retraining": "Retraining"}

_LAST_RESORT = "watch it: mooring get {name} -w; all events: kubectl describe mdep {name}"
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        _BROKEN,
        "mend what sends the data, or what is expected of it (the reference, "
        "spec.monitoring.features): mooring drift {name}",
    ),
    "NotLookedAt": "see whether the operator runs: kubectl get pods -A -l "
    "app.kubernetes.io/name=mooring-operator; it may also be told to look at other namespaces only",
    "Behind": "see whether the operator runs: kubectl get pods -A -l "
    "app.kubernetes.io/name=mooring-operator",
    "RuntimeNotFound": "see which runtimes there are: kubectl get mrt,cmrt -n {namespace}; then "
    "change spec.runtime.name or apply the missing one",
    "RuntimeInvalid": "mend the runtime's template; mooring lint checks it",
    "FormatNotSupported": "change spec.model.format or spec.runtime.name",
    "DigestRequired": "set spec.model.digest to what this prints: mooring digest {uri}",
    "InvalidSpec": "see every fault: kubectl get mdep {name} -o yaml | mooring lint -",
    "NameTaken": "remove or rename the object that is in the way, or rename this ModelDeployment",
    "WriteRefused": "an admission rule, a quota or the operator's own rights stand in the way: "
    "the message names the object",
    "RevisionRejected": "change the spec, or let it try again: mooring retry {name}",
    "ProgressDeadlineExceeded": "mend what the pods say, then change the spec or type: mooring "
    "retry {name}",
    "FetchFailed": "check spec.model.uri, its digest and its Secret; the whole story: kubectl logs "
    "{pod} -c fetch",
    "ServerFailed": "read its log: kubectl logs {pod} -c server --previous",
    "OutOfMemory": "raise spec.runtime.resources.limits.memory",
    "ImagePullFailed": "check spec.runtime.version, the runtime's image and "
    "spec.runtime.imagePullSecrets; more: kubectl describe pod {pod}",
    "ContainerRefused": "a Secret or ConfigMap that it names may be missing: kubectl describe pod "
    "{pod}",
    "Unschedulable": "no node takes the pod: lower spec.runtime.resources, make room, or check "
    "nodeSelector and tolerations; more: kubectl describe pod {pod}",
    "PodsRefused": "the API server refuses the pods: look at quotas and policies of the namespace: "
    "kubectl get resourcequota,limitrange -n {namespace}",
    "PodFailed": "read why: kubectl describe pod {pod}",
    "RouterNotReady": "look at the router's pods: kubectl describe pods {routers}",
    "RouterRefused": "read what the router says: kubectl logs {routers}; traffic stays as it was",
    "RouterNotTaking": "look at the router's pods: kubectl describe pods {routers}; traffic stays "
    "as it was",
    "NoData": "nothing moves without data: see whether the router's pods run, kubectl get pods "
    "{routers}, and whether Prometheus scrapes them (docs/operations.md)",
    "Inconclusive": "wait for more requests, or decide yourself: mooring promote {name} or mooring "
    "abort {name}; once it was taken back: mooring retry {name}",
    "AwaitingEvidence": "wait for more requests, or decide yourself: mooring promote {name} or "
    "mooring abort {name}",
    "Fail": "read its numbers: mooring get {name}; then change the model, or let it try again: "
    "mooring retry {name}",
    "AnalysisFailed": "read its numbers: mooring get {name}; then change the model, or let it try "
    "again: mooring retry {name}",
    "Drifted": "see what moved: mooring drift {name}, or as a page: mooring report {name}; then "
    "retrain it, or name a newer reference",
    "ConceptDrifted": "see what labels say: mooring drift {name}; then retrain it, or name a newer "
    "reference",
    "Retraining": "wait for the new model: mooring get {name} -w; how its training goes: kubectl "
    "describe rr -n {namespace}; what moved: mooring drift {name}",
    "ReferenceMissing": "make one and apply it: mooring reference build TABLE --name NAME",
    "ReferenceInvalid": "build it anew, under another name: mooring reference build",
    "ReferenceUnsuitable": "name the reference of this model in spec.monitoring.reference",
    "ReferenceOfAnotherModel": "name the reference of this model in spec.monitoring.reference, and "
    "see with mooring drift {name} what is missing",
    "NotScraped": "see whether the collector runs: kubectl get pods -n {namespace} -l "
    "mooring.dev/collector; and whether Prometheus scrapes it (docs/operations.md)",
    "PrometheusNotConfigured": "give the operator its address: config.prometheus.url of the chart",
    "NotMeasured": "change that metric of spec.analysis as the message says, or remove it",
    "InvalidQuery": "mend the query; mooring lint names the place where it breaks",
    "InvalidAnalysis": "mend spec.analysis; mooring lint checks it",
    "GatewayRefused": "read what its controller says: kubectl describe httproute {name} -n "
    "{namespace}; does the Gateway allow routes of this namespace and these hosts?",
    "GatewayNotAnswering": "look for the Gateway and its controller: kubectl get "
    "gateways,gatewayclasses -A",
    "GatewayApiMissing": "install the definitions of the Gateway API and a controller, or choose "
    "another spec.traffic.router",
    "NoService": "it is about to be made; if it stays away: kubectl describe mdep {name}",
    "Starting": "wait, or watch it: mooring get {name} -w",
    "ScaledToZero": "no pods are asked for; ask for one: kubectl scale mdep {name} --replicas=1",
    "Paused": "it waits for somebody: mooring resume {name} or mooring promote {name}, or mooring "
    "abort {name}",
}
"""What to do by the reason of a finding, or by the phase. Placeholders: see ``_next``."""
