"""What has to be read before deciding about retraining, and how to read a Job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mooring.core.retrain.facts import JobFacts

_WORDS_LIMIT = 4096


def owned_by(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether an object belongs to the request, or the Job, with this uid."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return any(o.get("uid") == uid for o in owners)


def unfinished(request: Mapping[str, Any]) -> bool:
    """Whether anything may still have to be done for a request."""
    status = request.get("status") or {}
    return status.get("phase") not in ("Succeeded", "Failed") and status.get("result") is None


def template_to_read(
    resource: Mapping[str, Any],
    requests: Iterable[Mapping[str, Any]],
    jobs: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """The PodTemplate that a Job is to be made from now; None while none is."""
    retraining = (resource.get("spec") or {}).get("retraining") or {}
    job = (retraining.get("action") or {}).get("job") or {}
    name = (job.get("templateRef") or {}).get("name")
    waiting = any(
        unfinished(request)
        and request["metadata"]["name"] not in jobs
        and not (request.get("status") or {}).get("jobName")
        for request in requests
    )
    return str(name) if name and waiting else None


def ended(job: Mapping[str, Any]) -> bool:
    """Whether a Job has come to its end, so that its pods have had their last word."""
    return _condition(job, "Complete") is not None or _condition(job, "Failed") is not None


def job_facts(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]] = ()) -> JobFacts:
    """Reads a raw Job and its pods; odd or missing fields count as absent.

    Of ``pods`` those of another Job, of an earlier request of the name for example, say nothing.
    """
    uid = str(job["metadata"].get("uid", ""))
    status = job.get("status") or {}
    failed = _condition(job, "Failed")
    succeeded = _condition(job, "Complete") is not None
    started = sum(int(status.get(part) or 0) for part in ("active", "succeeded", "failed"))
    return JobFacts(
        uid=uid,
        ended=ended(job),
        succeeded=succeeded,
        words=_last_words((pod for pod in pods if owned_by(pod, uid)), succeeded=succeeded),
        reason=str((failed or {}).get("reason") or ""),
        started=started,
    )


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == "True":
            return dict(condition)
    return None


def _last_words(pods: Iterable[Mapping[str, Any]], *, succeeded: bool) -> str:
    """The newest termination message, of a container that ended as the Job did if there is one."""
    found: list[tuple[bool, str, str]] = []
    for pod in pods:
        status = pod.get("status") or {}
        containers = (
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        )
        for container in containers:
            for state in (container.get("state"), container.get("lastState")):
                ended_as = (state or {}).get("terminated") or {}
                words = str(ended_as.get("message") or "").strip()
                if words:
                    alike = (ended_as.get("exitCode") == 0) == succeeded
                    found.append((alike, str(ended_as.get("finishedAt") or ""), words))
    return max(found, default=(False, "", ""))[2][-_WORDS_LIMIT:]
