"""What a Job and its pods say, whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest

from mooring.core.retrain.observing import ended, job_facts, template_to_read

Json = dict[str, Any]
RESOURCE: Json = {"spec": {"retraining": {"action": {"job": {"templateRef": {"name": "train"}}}}}}
#: What the pods of the Job have.
OURS: Json = {"ownerReferences": [{"kind": "Job", "name": "a", "uid": "u"}]}


def job(kind: str = "", **status: Any) -> Json:
    conditions = [{"type": kind, "status": "True", "reason": "Why"}] if kind else []
    return {
        "metadata": {"name": "a", "uid": "u"},
        "status": {"conditions": conditions, **status},
    }


def pod(code: int, words: str, at: str = "2026-01-01T00:00:00Z") -> Json:
    state = {"terminated": {"exitCode": code, "message": words, "finishedAt": at}}
    return {"metadata": OURS, "status": {"containerStatuses": [{"name": "train", "state": state}]}}


@pytest.mark.parametrize(
    ("kind", "over", "succeeded"),
    [("", False, False), ("Complete", True, True), ("Failed", True, False),
     ("SuccessCriteriaMet", False, False), ("Suspended", False, False)],
)  # fmt: skip
def test_a_job_is_over_when_a_condition_says_so(kind: str, over: bool, succeeded: bool) -> None:
    facts = job_facts(job(kind))
    assert (facts.ended, facts.succeeded, ended(job(kind))) == (over, succeeded, over)


def test_the_newest_words_of_a_container_that_ended_alike_are_the_last_ones() -> None:
    pods = [
        pod(1, "no memory", "2026-01-01T02:00:00Z"),
        pod(0, "old", "2026-01-01T00:00:00Z"),
        pod(0, "new", "2026-01-01T01:00:00Z"),
    ]
    assert job_facts(job("Complete"), pods).words == "new"
    assert job_facts(job("Failed"), pods).words == "no memory"


@pytest.mark.parametrize("owners", [{}, {"ownerReferences": [{"kind": "Job", "uid": "before"}]}])
def test_words_of_a_pod_that_is_not_the_jobs_are_nobodys(owners: Json) -> None:
    """An earlier Job of the name may have left one, and anybody who runs pods sets labels."""
    foreign = {**pod(0, "theirs", "2026-01-01T02:00:00Z"), "metadata": owners}
    assert job_facts(job("Complete"), [foreign]).words == ""
    assert job_facts(job("Complete"), [pod(0, "ours"), foreign]).words == "ours"


def test_words_of_an_init_container_count_where_no_other_has_any() -> None:
    state = {"terminated": {"exitCode": 2, "message": "no data", "finishedAt": "x"}}
    waiting = {"metadata": OURS, "status": {"initContainerStatuses": [{"lastState": state}]}}
    assert job_facts(job("Failed"), [waiting]).words == "no data"


@pytest.mark.parametrize("odd", [{}, {"status": {}}, {"status": {"containerStatuses": [{}]}}])
def test_an_odd_pod_has_no_words(odd: Json) -> None:
    assert job_facts(job("Failed"), [{"metadata": OURS, **odd}]).words == ""


def test_pods_that_were_started_are_counted() -> None:
    assert job_facts(job(active=1, failed=2)).started == 3


def request(**status: Any) -> Json:
    return {"metadata": {"name": "a"}, "status": status}


@pytest.mark.parametrize(
    ("found", "jobs", "read"),
    [
        (request(), {}, "train"),
        (request(phase="Pending"), {}, "train"),
        (request(), {"a": job()}, None),
        (request(jobName="a"), {}, None),
        (request(phase="Failed"), {}, None),
        (request(result={}), {}, None),
    ],
)
def test_a_template_is_read_only_when_a_job_is_to_be_made(
    found: Json, jobs: dict[str, Json], read: str | None
) -> None:
    assert template_to_read(RESOURCE, [found], jobs) == read


def test_without_a_job_no_template_is_read() -> None:
    assert template_to_read({"spec": {}}, [request()], {}) is None
