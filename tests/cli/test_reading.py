"""``list``, ``get``, ``history``, ``diff`` and ``explain`` against the fake API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli import objects
from tests.cli.api_server import FakeApi
from tests.cli.conftest import Mooring
from tests.cli.objects import CANDIDATE, NOW, OLD, REJECTED, STABLE, at, condition

from mooring.cli.completion import kubectl_complete
from mooring.cli.diagnosis import Diagnosis, diagnose
from mooring.cli.snapshot import Snapshot


def rows(output: str) -> list[list[str]]:
    return [row.split() for row in output.splitlines()]


def test_a_list_shows_phase_revisions_step_and_weight(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(name="new"))
    head, fraud, new = rows(mooring("list").output)
    assert head == [
        "NAME", "PHASE", "READY", "STABLE", "CANDIDATE", "STEP", "WEIGHT", "AGE", "MODEL",
    ]  # fmt: skip
    assert fraud[:7] == ["fraud", "RollingOut", "3/3", STABLE, CANDIDATE, "2/6", "25%"]
    assert fraud[8] == "s3://models/fraud/v8"
    assert new[:7] == ["new", "-", "-", "-", "-", "-", "-"]


def test_a_list_leaves_out_what_is_empty_everywhere(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(objects.serving()))
    head, _ = rows(mooring("list").output)
    assert "CANDIDATE" not in head
    assert "STEP" not in head


def test_a_list_of_all_namespaces_names_them(api: FakeApi, mooring: Mooring) -> None:
    elsewhere = objects.deployment(objects.serving(), name="churn")
    elsewhere["metadata"]["namespace"] = "lab"
    api.put(objects.DEPLOYMENTS.replace("/shop/", "/lab/"), elsewhere)
    assert [row[:2] for row in rows(mooring("list", "-A").output)] == [
        ["NAMESPACE", "NAME"], ["shop", "fraud"], ["lab", "churn"],
    ]  # fmt: skip


def test_an_empty_list_says_so_and_prints_no_data(api: FakeApi, mooring: Mooring) -> None:
    api.delete(objects.DEPLOYMENTS, "fraud")
    found = mooring("list")
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr == "There is no ModelDeployment in namespace shop.\n"
    assert json.loads(mooring("list", "-o", "json").output)["items"] == []


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize(
    "command",
    [("list",), ("get", "fraud"), ("history", "fraud"), ("diff", "fraud", "newest"),
     ("explain", "fraud"), ("version",)],
)  # fmt: skip
def test_everything_that_is_read_can_be_had_as_data(
    mooring: Mooring, command: tuple[str, ...], form: str
) -> None:
    found = mooring(*command, "-o", form)
    assert found.exit_code == 0, found.output
    assert yaml.safe_load(found.output)
    if form == "json":
        assert json.loads(found.output)


def test_data_of_get_is_the_status_and_what_the_pods_say(mooring: Mooring) -> None:
    value = json.loads(mooring("get", "fraud", "-o", "json").output)
    assert value["status"]["rollout"]["step"] == 2
    broken = next(pod for pod in value["pods"] if pod["reason"])
    assert (broken["revision"], broken["ready"], broken["restarts"]) == (CANDIDATE, False, 3)
    assert broken["message"].endswith("model.onnx: not a valid ONNX model")


def test_data_of_get_has_the_evidence_without_what_only_the_judge_can_read(
    api: FakeApi, mooring: Mooring
) -> None:
    api.put(objects.DEPLOYMENTS, objects.judged())
    analysis = json.loads(mooring("get", "fraud", "-o", "json").output)["status"]["analysis"]
    assert analysis["metrics"][1]["candidate"] == {"value": 0.212, "low": 0.18, "high": 0.31}
    assert "state" not in analysis


def test_a_list_shows_the_verdict_where_something_is_judged(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.judged())
    head, fraud = rows(mooring("list").output)
    assert dict(zip(head, fraud, strict=True))["VERDICT"] == "Inconclusive"


def test_history_tells_what_became_of_each_revision(mooring: Mooring) -> None:
    head, *found = rows(mooring("history", "fraud").output)
    assert head == ["NO", "REVISION", "STATE", "PROMOTED", "AGE", "MODEL", "DIGEST", "WHY"]
    assert [row[:3] for row in found] == [
        ["4", CANDIDATE, "new"],
        ["3", REJECTED, "rejected"],
        ["2", STABLE, "stable"],
        ["1", OLD, "promoted"],
    ]
    assert "Aborted: aborted by hand" in mooring("history", "fraud").output


def test_history_outlives_the_status_and_the_resource(api: FakeApi, mooring: Mooring) -> None:
    api.delete(objects.DEPLOYMENTS, "fraud")
    assert len(json.loads(mooring("history", "fraud", "-o", "json").output)) == 4


def test_history_of_one_without_revisions_says_so(api: FakeApi, mooring: Mooring) -> None:
    api.put(objects.DEPLOYMENTS, objects.deployment(name="new"))
    assert mooring("history", "new").output == "new has no revision yet.\n"


def test_a_record_that_the_operator_cannot_read_is_shown(api: FakeApi, mooring: Mooring) -> None:
    odd = objects.record("odd", 9, "s3://x/y", rejected="{", promotion="many")
    odd["data"] = None
    api.put(objects.RECORDS, odd)
    first = rows(mooring("history", "fraud").output)[1]
    assert first[:3] == ["9", "odd", "rejected"]


def test_diff_compares_with_the_stable_revision_by_default(mooring: Mooring) -> None:
    assert mooring("diff", "fraud", "4").output.splitlines() == [
        f"--- {STABLE} (2)  inputs",
        f"+++ {CANDIDATE} (4)  inputs",
        "@@ -1,4 +1,4 @@",
        " model:",
        "-  uri: s3://models/fraud/v7",
        "+  uri: s3://models/fraud/v8",
        " runtime:",
        "   name: onnx",
        f"--- {STABLE} (2)  pod template",
        f"+++ {CANDIDATE} (4)  pod template",
        "@@ -3,8 +3,8 @@",
        "     mooring.dev/revision: <revision>",
        " spec:",
        "   containers:",
        "-  - image: onnx-server:0.1.0",
        "+  - image: onnx-server:0.1.1",
        "     name: server",
        "     resources:",
        "       requests:",
        "-        cpu: 500m",
        "+        cpu: '1'",
    ]


@pytest.mark.parametrize(
    ("arguments", "pair"),
    [
        (("stable",), (OLD, STABLE)),
        (("newest",), (STABLE, CANDIDATE)),
        (("bkd",), (STABLE, CANDIDATE)),
        ((f"fraud-{CANDIDATE}",), (STABLE, CANDIDATE)),
        (("previous", "stable"), (OLD, STABLE)),
        (("4", "1"), (CANDIDATE, OLD)),
    ],
)
def test_revisions_are_named_in_several_ways(
    mooring: Mooring, arguments: tuple[str, ...], pair: tuple[str, str]
) -> None:
    value = json.loads(mooring("diff", "fraud", *arguments, "-o", "json").output)
    assert (value["from"], value["to"]) == pair
    assert {"path": "inputs.model.uri", "from": uri_of(pair[0]), "to": uri_of(pair[1])} in value[
        "changes"
    ]


def uri_of(revision: str) -> Any:
    found = {r["metadata"]["name"]: r for r in objects.all_records()}[f"fraud-{revision}"]
    return found["data"]["inputs"]["model"]["uri"]


def test_a_revision_that_is_not_there_is_answered_with_those_that_are(mooring: Mooring) -> None:
    found = mooring("diff", "fraud", "nope")
    assert found.exit_code == 7
    assert f"fraud has no revision nope: there are {CANDIDATE} (4), {REJECTED} (3)" in found.output


def test_equal_revisions_do_not_differ(mooring: Mooring) -> None:
    found = mooring("diff", "fraud", "4", "4", "--exit-code")
    assert (found.exit_code, found.stdout) == (0, "")
    assert mooring("diff", "fraud", "4", "2", "--exit-code").exit_code == 1


def told(status: dict[str, Any] | None, *pods: Any, events: Any = (), **meta: Any) -> Diagnosis:
    return diagnose(Snapshot(objects.deployment(status, **meta), pods), events, NOW)


def test_one_that_serves_needs_nothing() -> None:
    found = told(objects.serving())
    assert found.ready
    assert (found.findings, found.next) == ((), ())
    assert found.headline.startswith("fraud is Ready: 3 of 3 pods")


def test_why_it_is_not_ready_is_said_once_with_the_next_command() -> None:
    pod = objects.pod(CANDIDATE, 0, ready=False, name="churn")
    pod["status"]["initContainerStatuses"] = [
        {"name": "fetch", "state": {"terminated": {"exitCode": 3, "message": objects.DENIED}}}
    ]
    found = told(objects.stalled(), pod, name="churn")
    why = f"FetchFailed: 0 of 3 pods ready: {objects.DENIED}"
    assert found.headline == f"churn is not Ready: {why}."
    assert [(f.about, f.reason) for f in found.findings] == [
        (f"pod churn-{CANDIDATE}-5d8f0", "FetchFailed")
    ]
    [step] = found.next
    assert step.endswith(f"kubectl logs churn-{CANDIDATE}-5d8f0 -n shop -c fetch")


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("RuntimeNotFound", "kubectl get mrt,cmrt -n shop"),
        ("DigestRequired", "mooring digest s3://models/fraud/v8"),
        ("RevisionRejected", "mooring retry fraud -n shop"),
        ("Unschedulable", "no node takes the pod"),
        ("RouterRefused", "kubectl logs -n shop -l app.kubernetes.io/instance=fraud,"),
        ("OutOfMemory", "raise spec.runtime.resources.limits.memory"),
        ("SomethingNew", "kubectl describe mdep fraud -n shop"),
    ],
)
def test_every_reason_has_an_advice(reason: str, advice: str) -> None:
    assert advice in " ".join(told(objects.stalled(reason, "why")).next)


def test_one_that_nobody_looks_at_points_to_the_operator() -> None:
    found = told(None)
    assert [f.reason for f in found.findings] == ["NotLookedAt"]
    assert "see whether the operator runs" in found.next[0]
    young = told(None, creationTimestamp=at(0))
    assert young.findings[0].message == "it was made a moment ago"
    assert [f.reason for f in told(objects.serving(), generation=4).findings] == ["Behind"]


def test_a_rollout_that_waits_is_worth_knowing_and_no_fault() -> None:
    found = told(objects.rolling_out())
    assert found.ready
    assert [(f.about, f.reason, f.message) for f in found.findings] == [
        ("rollout", "Waiting", "waits for the step's time to be over")
    ]


def test_a_rollout_without_evidence_yet_is_explained_by_its_numbers() -> None:
    found = diagnose(Snapshot(objects.judged()), [], NOW)
    told = {finding.about: finding.message for finding in found.findings}
    assert set(told) == {"rollout", "metric p95", "metric approved"}
    assert told["metric p95"] == (
        "about 1,240 more requests needed; candidate 212 ms (180 ms to 310 ms) of 3,380 requests; "
        "stable 190 ms (170 ms to 210 ms) of 31,001 requests; ratio 1.12 (at least 0.86); "
        "61 % of the evidence for a Fail"
    )
    assert found.next[0].startswith("wait for more requests, or decide yourself: mooring promote")


def test_missing_data_points_to_prometheus() -> None:
    why = "no router pod gave a fresh sample for more than three ticks"
    found = diagnose(Snapshot(objects.judged(verdict="NoData", message=why)), [], NOW)
    assert ("analysis", "NoData", why) in [(f.about, f.reason, f.message) for f in found.findings]
    assert "whether Prometheus scrapes them" in found.next[0]


def drifting(reason: str = "Drifted", **more: Any) -> dict[str, Any]:
    status = {**objects.serving(), **more}
    status["conditions"] = [
        *(c for c in status["conditions"] if c["type"] != "Drifted"),
        condition("Drifted", "True", reason, "amount moved"),
    ]
    return status


@pytest.mark.parametrize("reason", ["Drifted", "ConceptDrifted"])
def test_drift_that_is_being_retrained_need_not_be_retrained_again(reason: str) -> None:
    found = told(drifting(reason))
    assert "then retrain it" in found.next[0]
    asked = {"request": "fraud-rr-1", "inFlight": 1, "message": "made for this episode"}
    found = told(drifting(reason, retraining=asked))
    assert [(f.about, f.reason) for f in found.findings] == [
        ("Drifted", reason), ("retraining", "InFlight"),
    ]  # fmt: skip
    assert found.next[0].startswith("wait for the new model: mooring get fraud -n shop -w")
    assert "then retrain it" not in " ".join(found.next)


def test_a_retrained_model_that_rolls_out_is_told_with_what_its_rollout_waits_for() -> None:
    rolling = objects.rolling_out()
    adopted = {"request": "fraud-rr-1", "revision": CANDIDATE, "uri": "s3://models/new"}
    status = {**rolling, "retraining": {"request": "fraud-rr-1", "outcome": "Adopted"}}
    found = told({**status, "adoptedModel": adopted})
    assert [(f.about, f.message) for f in found.findings] == [
        (
            "retraining",
            f"RetrainingRequest fraud-rr-1 led to revision {CANDIDATE}, which is rolling out",
        ),
        ("rollout", "waits for the step's time to be over"),
    ]


def test_broken_data_is_mended_where_it_comes_from() -> None:
    status = objects.serving()
    broken = condition("DataHealthy", "False", "Missing", "50 % of amount is missing")
    found = told({**status, "conditions": [*status["conditions"], broken]})
    assert found.next[0].startswith("mend what sends the data")


def test_warnings_are_told_with_how_often_they_came() -> None:
    event = {
        "type": "Warning", "reason": "FailedScheduling", "message": "0/3 nodes\nare available",
        "count": 4, "lastTimestamp": at(-1), "involvedObject": {"kind": "Pod", "name": "fraud-1"},
    }  # fmt: skip
    found = told(objects.stalled(), events=[event, {**event, "type": "Normal"}])
    assert found.events == (
        "11:59:00Z fraud-1: FailedScheduling: 0/3 nodes are available (4 times)",
    )


def test_explain_reads_the_events_of_the_resource_and_of_pods_in_trouble(
    api: FakeApi, mooring: Mooring
) -> None:
    for number, (kind, name) in enumerate(
        (("ModelDeployment", "fraud"), ("Pod", f"fraud-{CANDIDATE}-5d8f1"), ("Pod", "other"))
    ):
        api.put(objects.EVENTS, {
            "metadata": {"name": f"e{number}"}, "type": "Warning", "reason": f"R{number}",
            "message": "m", "lastTimestamp": at(0), "involvedObject": {"kind": kind, "name": name},
        })  # fmt: skip
    found = mooring("explain", "fraud")
    assert found.exit_code == 0
    assert " R0: m" in found.output
    assert f"fraud-{CANDIDATE}-5d8f1: R1: m" in found.output
    assert "R2" not in found.output


def test_names_are_completed_from_the_cluster(mooring: Mooring) -> None:
    def completed(words: str) -> list[str]:
        number = str(len(words.split(" ")) - 1)
        found = mooring(_MOORING_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
        return [line.partition(",")[2] for line in found.output.splitlines() if line]

    assert completed("mooring get fr") == ["fraud"]
    assert completed("mooring promote fraud --revision b") == [CANDIDATE]
    assert completed("mooring diff fraud d") == [REJECTED]
    assert completed("mooring get --kubeconfig /nowhere fr") == []
    assert "explain" in completed("mooring ex")


def test_kubectl_gets_completions_in_its_own_form(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def completed(*words: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["kubectl_complete-mooring", *words])
        kubectl_complete()
        return capsys.readouterr().out.splitlines()

    assert completed("get", "") == ["fraud", ":4"]
    assert completed("get", "-n", "shop", "fr") == ["fraud", ":4"]
    assert completed("diff", "fraud", "b") == [CANDIDATE, ":4"]
    assert completed("lint", "ex") == [":0"]
    assert completed("hist")[0].startswith("history\t")
