"""Traffic that moves from revision to revision under a constant stream, which loses no request."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mooring_dev.cluster import Cluster
from mooring_dev.demo_chart import NAMESPACE as OPERATOR_NAMESPACE
from mooring_dev.demo_client import Client, StreamResult, service_url
from mooring_dev.demo_model import Model, condition, is_true, read_manifests
from mooring_dev.demo_store import example, example_file, expected

Named = Callable[[str], Model]
Status = dict[str, Any]
#: Seconds between two requests of one stream: with the time of an answer more than 50 a second.
PAUSE = 0.01


@pytest.fixture
def apply(model: Named, uris: dict[str, str]) -> Callable[..., Model]:
    """An example that serves v1, with a rollout of its own."""

    def serving(folder: str, rollout: Mapping[str, Any] | None = None) -> Model:
        deployment = model("fraud")
        manifest = read_manifests(example_file(folder, "modeldeployment.yaml"))[0]
        if rollout is not None:
            manifest["spec"]["rollout"] = {"progressDeadline": "60s", **rollout}
        deployment.apply(manifest)
        deployment.wait_serving(uris["v1"])
        return deployment

    return serving


def point_to(model: Model, uri: str) -> None:
    model.patch({"spec": {"model": {"uri": uri}}})


def act(model: Model, verb: str, revision: str, token: str) -> None:
    action = f"mooring.dev/action={verb}/{revision}/{token}"
    model.kubectl("annotate", "mdep", model.name, "--overwrite", action)


def in_step(number: int) -> Callable[[Status], bool]:
    def holds(status: Status) -> bool:
        rollout = status.get("rollout", {})
        return bool(rollout.get("step") == number and rollout.get("stage") == "Waiting")

    return holds


def answers(result: StreamResult) -> dict[str, int]:
    """How many answers came from which model."""
    found = {"v1": 0, "v2": 0}
    for answer, count in result.answers.items():
        for version in found:
            if json.loads(answer)[0] == pytest.approx(
                expected(version, example().PAYMENTS), abs=1e-6
            ):
                found[version] += count
    return found


def assert_nothing_lost(result: StreamResult) -> None:
    assert result.failures == ()
    assert result.failed == 0
    assert sum(answers(result).values()) == result.sent, "every answer is one of the models'"


def assert_split(result: StreamResult, weight: int) -> None:
    """The candidate's share is the weight, within three standard errors."""
    share = answers(result)["v2"] / result.sent
    error = math.sqrt(weight / 100 * (1 - weight / 100) / result.sent)
    assert abs(share - weight / 100) <= 3 * error, f"{share:.3f} of {result.sent}, not {weight} %"


def scaled_to(count: int) -> Callable[[Status], bool]:
    pods = {"desired": count, "ready": count}
    return lambda status: bool(status["stable"]["replicas"] == pods)


def candidate_of(status: Status) -> str:
    return str(status["candidate"]["revision"])


def test_a_canary_goes_on_to_promotion_whatever_happens_to_routers_operator_and_pods(
    apply: Callable[..., Model],
    client: Client,
    operator: Cluster,
    uris: dict[str, str],
) -> None:
    fraud = apply(
        "canary",
        {"steps": [{"weight": 10}, {"pause": {}}, {"weight": 40}, {"pause": {}}, {"weight": 70}]},
    )
    url, body = service_url("fraud", fraud.namespace), example().request()
    with client.stream(url, body, pause=PAUSE) as whole:
        point_to(fraud, uris["v2"])
        candidate = candidate_of(fraud.wait("the pause at 10 %", in_step(2)))
        with client.stream(url, body, pause=PAUSE) as at_ten:
            fraud.kubectl("rollout", "restart", "deployment/fraud-router")
            fraud.kubectl("rollout", "status", "deployment/fraud-router", "--timeout=90s")

        act(fraud, "promote", candidate, "1")
        fraud.wait("the pause at 40 %", in_step(4))
        pods = fraud.kubectl("get", "pods", "-l", f"mooring.dev/revision={candidate}", "-o", "name")
        fraud.kubectl("delete", pods.split()[0])
        fraud.wait("its pods and its traffic again", in_step(4))
        with client.stream(url, body, pause=PAUSE) as at_forty:
            kill = ("--all", "--force", "--grace-period=0", "-n", OPERATOR_NAMESPACE)
            operator.kubectl("delete", "pods", *kill)
            ready = ("--for=condition=Ready", "pods", "--all", "--timeout=90s")
            operator.kubectl("wait", *ready, "-n", OPERATOR_NAMESPACE)
        act(fraud, "promote", candidate, "2")
        status = fraud.wait_serving(uris["v2"])
    for result in (whole.result, at_ten.result, at_forty.result):
        assert_nothing_lost(result)
    assert_split(at_ten.result, 10)
    assert_split(at_forty.result, 40)
    assert status["stable"]["revision"] == candidate
    assert answers(whole.result)["v2"] > 0


def test_an_abort_at_any_step_takes_everything_back_and_loses_nothing(
    apply: Callable[..., Model], client: Client, uris: dict[str, str]
) -> None:
    fraud = apply(
        "canary", {"steps": [{"weight": 20}, {"pause": {}}, {"weight": 60}, {"pause": {}}]}
    )
    url, body = service_url("fraud", fraud.namespace), example().request()
    with client.stream(url, body, pause=PAUSE) as stream:
        point_to(fraud, uris["v2"])
        for turn, step in enumerate((2, 4)):
            candidate = candidate_of(fraud.wait("the first pause", in_step(2)))
            if step == 4:
                act(fraud, "promote", candidate, f"promote-{turn}")
                fraud.wait("the second pause", in_step(4))
            act(fraud, "abort", candidate, f"abort-{turn}")
            status = fraud.wait("stable with everything", lambda s: is_true(s, "RolledBack"))
            fraud.wait("no traffic for it", lambda s: s["stable"].get("weight") == 100)
            assert condition(status, "RolledBack")["reason"] == "Aborted"
            if step == 2:
                act(fraud, "retry", candidate, f"retry-{turn}")
        fraud.kubectl("wait", "--for=delete", "pods", "-l", f"mooring.dev/revision={candidate}")
    assert_nothing_lost(stream.result)
    assert answers(stream.result)["v2"] > 0


def test_undo_in_the_bake_and_scaling_lose_nothing(
    apply: Callable[..., Model], client: Client, uris: dict[str, str]
) -> None:
    fraud = apply("canary", {"steps": [{"weight": 50}], "bake": {"duration": "10m"}})
    first = fraud.status()["stable"]["revision"]
    url, body = service_url("fraud", fraud.namespace), example().request()
    with client.stream(url, body, pause=PAUSE) as stream:
        point_to(fraud, uris["v2"])
        status = fraud.wait("the bake", lambda s: s.get("phase") == "Baking")
        second = status["stable"]["revision"]
        fraud.wait("the old one's share", lambda s: s.get("previous", {}).get("weight") == 5)
        with client.stream(url, body, pause=PAUSE) as baking:
            for count in (3, 2):
                fraud.kubectl("scale", "mdep/fraud", f"--replicas={count}")
                fraud.wait(f"{count} pods", scaled_to(count))
        act(fraud, "undo", second, "1")
        status = fraud.wait("the old one again", lambda s: s["stable"]["revision"] == first)
        fraud.wait("its traffic", lambda s: s["stable"].get("weight") == 100)
        fraud.kubectl("wait", "--for=delete", "pods", "-l", f"mooring.dev/revision={second}")
    assert_nothing_lost(stream.result)
    assert_split(baking.result, 95)


def test_blue_green_moves_nothing_before_promote_and_everything_after(
    apply: Callable[..., Model], client: Client, uris: dict[str, str]
) -> None:
    fraud = apply("blue-green")
    point_to(fraud, uris["v2"])
    candidate = candidate_of(fraud.wait("the pause", in_step(2)))
    url, body = service_url("fraud", fraud.namespace), example().request()
    with client.stream(url, body) as before:
        own = f"http://fraud-{candidate}.{fraud.namespace}.svc:8080/v2/models/fraud/infer"
        assert client.infer(own, body)["model_name"] == "fraud"
    assert answers(before.result)["v2"] == 0
    act(fraud, "promote", candidate, "1")
    everything = {"revision": candidate, "weight": 100}
    fraud.wait("all traffic", lambda s: everything.items() <= s["stable"].items())
    with client.stream(url, body) as after:
        fraud.kubectl("get", "mdep", "fraud")
    assert_nothing_lost(before.result)
    assert_nothing_lost(after.result)
    assert answers(after.result)["v1"] == 0


def test_a_shadow_gets_copies_and_nobody_its_answers(
    apply: Callable[..., Model], client: Client, uris: dict[str, str]
) -> None:
    fraud = apply("shadow")
    url, body = service_url("fraud", fraud.namespace), example().request()
    with client.stream(url, body, pause=PAUSE) as stream:
        point_to(fraud, uris["v2"])
        candidate = candidate_of(fraud.wait("the mirror", in_step(1)))
        metrics = f"http://fraud-{candidate}.{fraud.namespace}.svc:8080/metrics"
        fraud.wait("copies", lambda _: _served(client, metrics) > 20)
    assert_nothing_lost(stream.result)
    assert answers(stream.result)["v2"] == 0


def _served(client: Client, url: str) -> float:
    """How many inferences a pod has counted."""
    found = client.cluster.kubectl(
        "exec", "-n", client.namespace, "client", "--", "python", "-c",
        f"import urllib.request as r; print(r.urlopen({url!r}).read().decode())",
    )  # fmt: skip
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in found.splitlines()
        if line.startswith("mooring_onnx_request_duration_seconds_count")
    )


def test_a_header_chooses_the_revision(
    apply: Callable[..., Model], client: Client, uris: dict[str, str]
) -> None:
    fraud = apply("ab-by-header")
    point_to(fraud, uris["v2"])
    fraud.wait("the match", in_step(2))
    url, body = service_url("fraud", fraud.namespace), example().request()
    plain, chosen = client.infer(url, body), client.infer(url, body, headers={"x-group": "b"})
    for answer, version in ((plain, "v1"), (chosen, "v2")):
        data = answer["outputs"][0]["data"]
        assert data == pytest.approx(expected(version, example().PAYMENTS), abs=1e-6)
