"""What pods say: their last words in one sentence, and never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.core.pods import PodReport, report, worst

DIGEST = "sha256:" + "0a" * 32


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "fraud-1"}, "status": status}


def container(name: str, *, restarts: int = 0, last: Any = None, **state: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "state": state, "restartCount": restarts}
    return found | ({"lastState": {"terminated": last}} if last else {})


def fetched(digest: str = DIGEST) -> dict[str, Any]:
    message = json.dumps({"digest": digest, "bytes": 1, "files": 1, "seconds": 0.1})
    return container("fetch", terminated={"exitCode": 0, "message": message})


WAITING = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}

CASES: dict[str, tuple[dict[str, Any], tuple[str, str, bool]]] = {
    "nothing yet": (pod(), ("Starting", "", False)),
    "fetching": (
        pod(initContainerStatuses=[container("fetch", running={})]),
        ("Starting", "fetching the model", False),
    ),
    "loading": (
        pod(
            initContainerStatuses=[fetched()],
            containerStatuses=[container("server", running={"startedAt": "now"})],
        ),
        ("Starting", "the server runs, and its model is not ready yet", False),
    ),
    "a fetch that no retry will mend": (
        pod(
            initContainerStatuses=[
                container(
                    "fetch",
                    waiting=WAITING,
                    last={"exitCode": 3, "message": "Secret s3 was not found or is empty."},
                )
            ]
        ),
        ("FetchFailed", "Secret s3 was not found or is empty.", True),
    ),
    "a fetch that may yet work": (
        pod(initContainerStatuses=[container("fetch", terminated={"exitCode": 1, "message": "x"})]),
        ("FetchFailed", "x", False),
    ),
    "a fetch that tries again": (
        pod(
            initContainerStatuses=[
                container("fetch", running={}, last={"exitCode": 1, "message": "timed out"})
            ]
        ),
        ("FetchFailed", "timed out", False),
    ),
    "a silent fetch": (
        pod(initContainerStatuses=[container("fetch", terminated={"exitCode": 137})]),
        ("FetchFailed", "the fetcher ended with exit code 137 and left no message", False),
    ),
    "a fetch out of memory": (
        pod(
            initContainerStatuses=[
                container("fetch", terminated={"exitCode": 137, "reason": "OOMKilled"})
            ]
        ),
        ("OutOfMemory", "the fetcher was killed at its memory limit", False),
    ),
    "a server that fails": (
        pod(
            initContainerStatuses=[fetched()],
            containerStatuses=[
                container(
                    "server",
                    restarts=4,
                    waiting=WAITING,
                    last={
                        "exitCode": 1,
                        "message": "Traceback\n  line 1\nNo input.\n",
                    },
                )
            ],
        ),
        ("ServerFailed", "the server ended with exit code 1: No input.", False),
    ),
    "a silent server": (
        pod(containerStatuses=[container("server", terminated={"exitCode": 139})]),
        ("ServerFailed", "the server ended with exit code 139 and said nothing", False),
    ),
    "a server out of memory": (
        pod(
            containerStatuses=[
                container("server", terminated={"exitCode": 137, "reason": "OOMKilled"})
            ]
        ),
        (
            "OutOfMemory",
            "the server was killed at its memory limit: raise spec.runtime.resources.limits.memory",
            False,
        ),
    ),
    "an image that is not there": (
        pod(
            containerStatuses=[
                container("server", waiting={"reason": "ImagePullBackOff", "message": "not found"})
            ]
        ),
        ("ImagePullFailed", "container server: not found", False),
    ),
    "a fetcher's image that is not there": (
        pod(initContainerStatuses=[container("fetch", waiting={"reason": "ErrImagePull"})]),
        ("ImagePullFailed", "container fetch: ErrImagePull", False),
    ),
    "a container that cannot be made": (
        pod(
            containerStatuses=[
                container(
                    "server",
                    waiting={
                        "reason": "CreateContainerConfigError",
                        "message": 'secret "db" not found',
                    },
                )
            ]
        ),
        ("ContainerRefused", 'container server: secret "db" not found', False),
    ),
    "no node for it": (
        pod(
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient memory.",
                }
            ]
        ),
        ("Unschedulable", "0/3 nodes are available: 3 Insufficient memory.", False),
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        ("PodFailed", "The node was low on resource: memory.", False),
    ),
    "ready": (
        pod(conditions=[{"type": "Ready", "status": "True"}]),
        ("", "", False),
    ),
    "told to go": (
        {
            "metadata": {"name": "fraud-1", "deletionTimestamp": "now"},
            "status": {
                "containerStatuses": [container("server", terminated={"exitCode": 143})],
            },
        },
        ("", "", False),
    ),
}


@pytest.mark.parametrize(("raw", "expected"), CASES.values(), ids=CASES.keys())
def test_what_a_pod_says(raw: dict[str, Any], expected: tuple[str, str, bool]) -> None:
    found = report(raw)
    assert (found.reason, found.message, found.permanent) == expected
    assert found.name == "fraud-1"
    assert found.ready is (raw["status"].get("conditions", [{}])[0].get("type") == "Ready")


def test_last_words_are_one_bounded_line() -> None:
    words = "a\n" * 50 + "x" * 5000
    found = report(
        pod(containerStatuses=[container("server", terminated={"exitCode": 1, "message": words})])
    )
    assert "\n" not in found.message
    assert len(found.message) < 700
    assert found.message.endswith("…")


def test_the_digest_is_what_the_fetcher_left() -> None:
    assert report(pod(initContainerStatuses=[fetched()])).digest == DIGEST


def test_also_of_a_pod_that_serves_and_of_one_that_is_told_to_go() -> None:
    raw = pod(initContainerStatuses=[fetched()], conditions=[{"type": "Ready", "status": "True"}])
    assert report(raw).digest == DIGEST
    raw["metadata"]["deletionTimestamp"] = "now"
    assert report(raw).digest == DIGEST


@pytest.mark.parametrize(
    "message",
    [
        None, "", "{", "[]", "7", "null", '{"digest": null}', '{"digest": 7}', '{"digest": "x"}',
        '{"digest": "sha256:"}', '{"digest": "sha256:' + "0" * 63 + '"}',
        '{"digest": "sha256:' + "G" * 64 + '"}', '{"digest": "sha256:' + "0" * 64 + '\\n"}',
        "[" * 100_000,
    ],
    ids=lambda message: str(message)[:20],
)  # fmt: skip
def test_anything_else_is_no_digest(message: str | None) -> None:
    ended = {"exitCode": 0, "message": message}
    raw = pod(initContainerStatuses=[container("fetch", terminated=ended)])
    assert report(raw).digest is None


def test_a_digest_of_a_fetch_that_failed_does_not_count() -> None:
    raw = pod(initContainerStatuses=[fetched()])
    raw["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] = 3
    assert report(raw).digest is None


# which of them to repeat ------------------------------------------------------------------------


def said(reason: str, name: str = "a", *, permanent: bool = False, restarts: int = 0) -> PodReport:
    return PodReport(name, False, reason, "words", permanent=permanent, restarts=restarts)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], None),
        ([PodReport("a", True)], None),
        ([PodReport("a", True), said("Starting", "b")], "b"),
        ([said("Starting", "z"), said("ServerFailed", "a")], "a"),
        ([said("ServerFailed", "z", restarts=9), said("FetchFailed", "a", permanent=True)], "a"),
        ([said("ServerFailed", "a", restarts=3), said("ServerFailed", "b", restarts=1)], "a"),
        ([said("ServerFailed", "a"), said("ServerFailed", "b")], "b"),
    ],
)
def test_the_pod_that_explains_best_speaks_for_all(
    pods: list[PodReport], expected: str | None
) -> None:
    for order in (pods, pods[::-1]):
        found = worst(order)
        assert (found.name if found else None) == expected


# whatever comes ---------------------------------------------------------------------------------


def full_pod() -> dict[str, Any]:
    return pod(
        phase="Running",
        conditions=[{"type": "PodScheduled", "status": "True"}],
        initContainerStatuses=[fetched()],
        containerStatuses=[
            container("server", restarts=2, waiting=WAITING, last={"exitCode": 1, "message": "x"})
        ],
    )


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*prefix, key))
        if isinstance(item, dict | list):
            found += paths(item, (*prefix, key))
    return found


def replaced(raw: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Puts a value in the place of another, if that place is still there."""
    parent: Any = raw
    for step in path[:-1]:
        try:
            parent = parent[step]
        except (KeyError, IndexError, TypeError):
            return
    inside = isinstance(parent, list) and isinstance(path[-1], int) and path[-1] < len(parent)
    if isinstance(parent, dict) or inside:
        parent[path[-1]] = value


ODD = st.sampled_from(
    [None, True, False, 0, -1, 3, 1.5, "", "text", [], [None], ["a"], {}, {"a": None}, {"name": 1}]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(paths(full_pod())), ODD), max_size=5))
def test_no_pod_however_odd_makes_it_raise(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    raw = full_pod()
    for path, value in changes:
        replaced(raw, path, value)
    found = report(raw)
    assert isinstance(found.name, str)
    assert isinstance(found.message, str)
    assert isinstance(found.restarts, int)
    assert found.ready is False or found.reason == ""
    worst([found])


@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": {"name": None}, "status": 7}])
def test_nor_does_a_pod_without_anything(raw: dict[str, Any]) -> None:
    assert report(raw).name == ""
