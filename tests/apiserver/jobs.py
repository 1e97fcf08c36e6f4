"""A training Job that is done: what a kubelet and the Job controller would write."""

from __future__ import annotations

from tests.apiserver.cluster import Api, Json

from mooring.core import kinds

TEMPLATE: Json = {
    "metadata": {"name": "train"},
    "template": {
        "metadata": {"labels": {"team": "risk"}},
        "spec": {"containers": [{"name": "train", "image": "example.com/train:1"}]},
    },
}
BY_JOB: Json = {"action": {"job": {"templateRef": {"name": "train"}}}, "cooldown": "0s"}


async def finish_job(api: Api, namespace: str, name: str, words: str) -> None:
    """Ends with ``words`` as the last ones of its container."""
    job = await api.get(kinds.JOB, namespace, name)
    assert job is not None
    template = job["spec"]["template"]
    pod = {
        "metadata": {
            "name": f"{name}-pod",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": name,
                    "uid": job["metadata"]["uid"],
                }
            ],
        },
        "spec": {**template["spec"], "automountServiceAccountToken": False},
    }
    await api.create(kinds.POD, namespace, pod)
    ended = {"exitCode": 0, "message": words, "finishedAt": "2026-01-01T00:00:00Z"}
    container = {"name": "train", "ready": False, "restartCount": 0, "image": "i", "imageID": "i",
                 "state": {"terminated": ended}}  # fmt: skip
    status: Json = {"phase": "Succeeded", "containerStatuses": [container]}
    await api.patch(kinds.POD, namespace, f"{name}-pod", {"status": status}, "status")
    moment = job["metadata"]["creationTimestamp"]
    done = [
        {"type": kind, "status": "True", "lastTransitionTime": moment, "lastProbeTime": moment}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    status = {"startTime": moment, "completionTime": moment, "succeeded": 1, "conditions": done,
              "uncountedTerminatedPods": {}}  # fmt: skip
    await api.patch(kinds.JOB, namespace, name, {"status": status}, "status")
