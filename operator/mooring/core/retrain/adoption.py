"""Adoption: a retrained model takes the place of spec.model, which is never written.

Which revision serves which request's model stands in that revision's record, together with the hash
of the spec.model that it supersedes; so a new model in Git wins, and deleting the request changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mooring.api import ModelDeployment
from mooring.core.observed import Observed
from mooring.core.retrain.adopted import Adopted, model_hash
from mooring.core.retrain.desk import Desk, entered
from mooring.core.retrain.facts import RetrainingFacts
from mooring.core.retrain.ledger import joined
from mooring.core.retrain.request import read_request
from mooring.core.retrain.result import own_prefix
from mooring.core.revision import History, Revision, normal_form


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for once retrained models are taken into account.

    ``inputs`` identify the revision; ``adopted`` is set where its model is not spec.model's.
    """

    inputs: dict[str, Any]
    adopted: Adopted | None = None
    uri: str = ""
    digest: str = ""

    def resource(self, resource: ModelDeployment) -> ModelDeployment:
        """The resource as if its spec named the adopted model, to render a revision from."""
        if self.adopted is None:
            return resource
        model = resource.spec.model.model_copy(update={"uri": self.uri, "digest": self.digest})
        spec = resource.spec.model_copy(update={"model": model})
        return resource.model_copy(update={"spec": spec})


def open_desk(
    observed: Observed,
    resource: ModelDeployment,
    history: History,
    inputs: Mapping[str, Any],
    facts: RetrainingFacts,
) -> Desk:
    """The desk, with all that its requests show in its ledger."""
    spec = resource.spec.retraining
    prefixes = own_prefix(resource.spec.model.uri)
    if spec is not None and spec.allowed_prefixes is not None:
        prefixes = spec.allowed_prefixes
    known = joined(r.ledger for r in history.revisions)
    # A schedule that the spec has dropped is remembered by older records only.
    schedules = history.stable.ledger.schedules if history.stable is not None else {}
    desk = Desk(
        uid=observed.uid,
        name=observed.name,
        namespace=observed.namespace,
        now=observed.now.replace(microsecond=0),
        spec=spec,
        model=model_hash(inputs["model"]),
        prefixes=prefixes,
        ledger=replace(known, schedules=schedules),
        requests=tuple(sorted(
            (read_request(raw) for raw in facts.requests),
            key=lambda r: (r.created, r.name),
        )),
        facts=facts,
        labels=(observed.settings.scrape_namespace_label, observed.settings.scrape_pod_label),
    )  # fmt: skip
    made = {
        r.adopted.request: r.hash
        for r in sorted(history.revisions, key=lambda r: r.sequence)
        if r.adopted is not None and r.resource_version
    }
    stable = history.stable
    return entered(desk, stable.hash if stable else None, made)


def without_outdated(history: History, desk: Desk) -> History:
    """The history in which adoptions are over whose spec.model is not today's."""
    for revision in history.revisions:
        adopted = revision.adopted
        if adopted is not None and not adopted.over and adopted.supersedes != desk.model:
            ended = replace(revision, adopted=replace(adopted, over=True))
            history = history.with_revision(ended)
    return history


def wanted(history: History, desk: Desk, inputs: Mapping[str, Any]) -> Wanted:
    """What the spec asks for, or a retrained model in its place: the newest that was not rejected.

    A result that has no revision yet goes before those that have.
    """
    pending = _pending(desk)
    if pending is not None:
        return pending_inputs(inputs, pending)
    force = in_force(history, desk.model)
    if force is None or force.adopted is None:
        return Wanted(dict(inputs))
    model = force.inputs["model"]
    found = Wanted(
        {}, replace(force.adopted, over=False), str(model["uri"]), str(model.get("digest", ""))
    )
    return pending_inputs(inputs, found)


def in_force(history: History, model: str) -> Revision | None:
    """The revision whose model stands in for spec.model; None where there is none."""
    found = [
        r
        for r in history.revisions
        if r.adopted is not None
        and not r.adopted.over
        and r.adopted.supersedes == model
        and r.rejected is None
    ]
    return max(found, key=lambda r: r.sequence, default=None)


def pending_inputs(inputs: Mapping[str, Any], found: Wanted) -> Wanted:
    """The inputs with the adopted model in place of the spec's."""
    model = {**inputs["model"], "uri": found.uri, "digest": found.digest, "source": ""}
    return replace(found, inputs=normal_form({**inputs, "model": model}))


def _pending(desk: Desk) -> Wanted | None:
    """The oldest request's result that is to be adopted and has no recorded revision.

    Each has its turn, and the one that is adopted last stays: of several at once the newest's.
    """
    if desk.rules.on_success == "None":
        return None
    for request in desk.requests:
        entry = desk.ledger.of(request.name)
        if entry is None or entry.outcome is not None or entry.model != desk.model:
            continue
        if request.deleted or request.status.get("phase") == "Failed":
            continue
        result = desk.result(request)
        if result is not None:
            return Wanted({}, Adopted(request.name, desk.model), result.uri, result.digest)
    return None
