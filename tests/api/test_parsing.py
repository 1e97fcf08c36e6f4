"""Reading resources: stored ones forgivingly, files strictly, and fast enough for the engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mooring.api import (
    Condition,
    InvalidResource,
    RevisionStatus,
    lint,
    parse_cluster_model_runtime,
    parse_duration,
    parse_model_deployment,
    parse_model_runtime,
    parse_retraining_request,
    parse_runtime_template,
    parse_status,
)
from mooring.api.schema_types import MESSAGE_LENGTH, QUANTITY_MESSAGE, format_time

STORED = {
    "apiVersion": "mooring.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {
        "name": "fraud",
        "namespace": "default",
        "uid": "1",
        "generation": 3,
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {
        "model": {"uri": "s3://models/fraud/v7", "format": {"name": "onnx", "version": "1"}},
        "runtime": {
            "name": "onnx",
            "env": [{"name": f"V{n}", "value": "1"} for n in range(5)],
            "resources": {"requests": {"cpu": 1, "memory": "512Mi"}},
        },
        "replicas": 3,
        "rollout": {"steps": [{"weight": w, "duration": "10m"} for w in (5, 25, 50)]},
    },
}


def with_spec(**more: object) -> dict[str, object]:
    return {**STORED, "spec": {**STORED["spec"], **more}}  # type: ignore[dict-item]


def test_attributes_are_snake_case_and_defaults_are_filled_in() -> None:
    spec = parse_model_deployment(STORED).spec

    assert spec.model.uri == "s3://models/fraud/v7"
    assert spec.runtime.resources is not None
    assert spec.runtime.resources.requests == {"cpu": "1", "memory": "512Mi"}
    assert spec.rollout.progress_deadline == "10m"
    assert spec.rollout.revision_history_limit == 10


def test_an_object_stored_under_a_newer_schema_is_read_without_its_unknown_fields() -> None:
    newer = with_spec(traffic={"router": "envoy"}, model={"uri": "s3://a/b", "variant": "x"})

    assert parse_model_deployment(newer).spec.model.uri == "s3://a/b"


def test_a_status_that_does_not_fit_is_dropped() -> None:
    assert parse_model_deployment({**STORED, "status": {"conditions": 7}}).status is not None
    assert parse_status({"replicas": "three"}).replicas is None
    assert parse_status(None).phase is None


def test_a_status_that_fits_is_kept() -> None:
    status = parse_model_deployment({**STORED, "status": {"replicas": 2, "new": 1}}).status

    assert status is not None
    assert status.replicas == 2


def test_strict_reading_names_unknown_fields_and_suggests_the_nearest() -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_model_deployment(with_spec(replcas=3, canary=5), strict=True)

    assert refused.value.problems == (
        "spec.replcas: unknown field: did you mean replicas?",
        (
            "spec.canary: unknown field: remove it; the fields here are model, runtime, replicas, "
            "autoscaling, traffic, rollout, analysis, monitoring, retraining"
        ),
    )


def test_an_unknown_field_in_a_list_is_named_with_its_place() -> None:
    step = {"weigth": 5, "pause": {}}

    with pytest.raises(InvalidResource) as refused:
        parse_model_deployment(with_spec(rollout={"steps": [step]}), strict=True)

    assert "spec.rollout.steps[0].weigth: unknown field: did you mean weight?" in str(refused.value)


def test_every_problem_gets_a_line_of_its_own() -> None:
    broken = with_spec(model={"uri": "fraud", "digest": "9f2c"}, replicas="3")

    with pytest.raises(InvalidResource) as refused:
        lint(broken)

    assert [line.split(":")[0] for line in refused.value.problems] == [
        "spec.model.uri",
        "spec.model.digest",
        "spec.replicas",
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"replicas": True}, "spec.replicas: must be a whole number without quotes, not True"),
        (
            {"runtime": {"name": "x", "resources": {"requests": {"cpu": 0.5}}}},
            (f'spec.runtime.resources.requests[cpu]: {QUANTITY_MESSAGE}: write "0.5" with quotes'),
        ),
        ({"runtime": {}}, "spec.runtime.name: is required: add it"),
        (
            {"runtime": {"name": "x", "args": ["a"] * 129}},
            "spec.runtime.args: has too many entries: at most 128",
        ),
        ({"replicas": 1001}, "spec.replicas: is 1001, but must be less than or equal to 1000"),
    ],
)
def test_what_pydantic_finds_is_said_in_our_words(spec: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_model_deployment(with_spec(**spec))

    assert refused.value.problems == (words,)


def test_the_spec_of_a_runtime_is_read_alone_with_paths_from_spec() -> None:
    with pytest.raises(InvalidResource, match=r"^spec\.image: is required: add it$"):
        parse_runtime_template(
            {"formats": [{"name": "a"}], "ports": [{"name": "h", "containerPort": 1}]}
        )


def test_each_kind_has_its_reader() -> None:
    meta = {"apiVersion": "mooring.dev/v1alpha1", "metadata": {"name": "a"}}
    spec = {
        "formats": [{"name": "a"}],
        "image": "b",
        "ports": [{"name": "h", "containerPort": 1}],
    }
    request = {
        "deploymentRef": {"name": "fraud"},
        "revision": "abc",
        "trigger": {"type": "Manual"},
        "idempotencyKey": "k",
    }

    mine = parse_model_runtime({**meta, "kind": "ModelRuntime", "spec": spec})
    shared = parse_cluster_model_runtime({**meta, "kind": "ClusterModelRuntime", "spec": spec})
    asked = parse_retraining_request({**meta, "kind": "RetrainingRequest", "spec": request})

    assert mine.spec == shared.spec == parse_runtime_template(spec)
    assert mine.spec.ports[0].service is True
    assert asked.spec.deployment_ref.name == "fraud"


def test_lint_names_the_kinds_it_knows() -> None:
    with pytest.raises(InvalidResource, match="kind: 'Pod' is not one of ModelDeployment, "):
        lint({"kind": "Pod"})


def test_a_spec_is_read_in_well_below_a_millisecond() -> None:
    parse_model_deployment(STORED)
    fastest = min(_seconds_for_one() for _ in range(200))

    assert fastest < 0.0005


def _seconds_for_one() -> float:
    began = time.perf_counter()
    parse_model_deployment(STORED)
    return time.perf_counter() - began


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30s", timedelta(seconds=30)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("168h", timedelta(days=7)),
        ("1500ms", timedelta(seconds=1.5)),
        ("1h2m3s4ms", timedelta(hours=1, minutes=2, seconds=3, milliseconds=4)),
        ("0s", timedelta(0)),
    ],
)
def test_durations_are_those_of_go(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7d",
        "10",
        "-1s",
        "1m1h",
        "1us",
        "s",
        "1s\n",
        "999999999h",
        "9" * 400 + "h",
        "1e9h",
        "∞h",
    ],
)
def test_a_duration_that_is_none_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ValueError, match="168h, not 7d"):
        parse_duration(text)


@given(st.integers(0, 99999), st.integers(0, 59), st.integers(0, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    expected = timedelta(hours=hours, minutes=minutes, seconds=seconds)

    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == expected


def test_times_are_written_in_utc_with_whole_seconds() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2)))
    condition = Condition(
        type="Ready", status="True", reason="Serving", message="", last_transition_time=moment
    )

    assert format_time(moment) == "2026-01-02T01:04:05Z"
    assert condition.as_dict() == {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "",
        "lastTransitionTime": "2026-01-02T01:04:05Z",
    }


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        RevisionStatus(revision="a", model_uri="s3://a/b", since=datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_message_that_is_too_long_is_cut_so_that_status_stays_writable() -> None:
    condition = Condition(
        type="Ready",
        status="False",
        reason="Failed",
        message="x" * 10_000,
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert len(condition.message) == MESSAGE_LENGTH
    assert condition.message.endswith("…")


def test_a_parsed_resource_cannot_be_changed() -> None:
    resource = parse_model_deployment(STORED)

    with pytest.raises(ValidationError, match="frozen"):
        resource.spec.replicas = 7  # type: ignore[misc]
