"""The offline check and the API server agree on any text, not only on cases somebody thought of.

Texts are made of the letters that the rules are about, so that about half of them are right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mooring.api import InvalidResource, lint
from mooring.api.modeldeployment import SCHEMES

Manifest = dict[str, Any]
Create = Callable[[Manifest], Manifest]

pytestmark = pytest.mark.apiserver

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def joined(*parts: st.SearchStrategy[str], least: int = 0, most: int = 4) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(*parts), min_size=least, max_size=most).map("".join)


digits = st.integers(0, 10**9).map(str)
durations = joined(
    digits,
    st.sampled_from(["h", "m", "s", "ms", "d", ".", "-", "1h", "30m", "5s", "1.5h", "0s", "\n"]),
    least=1,
)
quantities = joined(
    digits,
    st.sampled_from(
        ["m", "k", "K", "Ki", "Mi", "Gi", "G", ".", "-", "+", "e", "e3", "E", " ", "1"]
    ),
    least=1,
    most=3,
)
uris = joined(
    st.sampled_from(["s3:/", "S3://", "", "mlflow://", *(f"{scheme}://" for scheme in SCHEMES)]),
    least=1,
    most=1,
).flatmap(
    lambda scheme: joined(
        st.sampled_from(
            [
                "bucket",
                "/",
                "a.b",
                "..",
                "/..",
                "C",
                "_",
                ":80",
                "@",
                "[::1]",
                " ",
                "é",
                "?x=1",
                "\n",
            ]
        ),
        most=5,
    ).map(lambda rest: scheme + rest)
)
names = joined(st.sampled_from(["a", "b7", "-", "7", ".", "A", "_", "x" * 20]), least=1)
label_keys = joined(
    st.sampled_from(
        ["a", "team", "/", "example.com/", "mooring.dev/", "-", ".", "A", " ", "x" * 40]
    ),
    least=1,
)
label_values = joined(st.sampled_from(["a", "7", "-", "_", ".", "A", " ", "é", "x" * 30]))
templates = joined(
    st.sampled_from(
        [
            "{{ model.name }}",
            "{{model.path}}",
            "{{ uri }}",
            "{{",
            "}}",
            "{",
            "}",
            "a",
            " ",
            "\n",
            "{{}}",
        ]
    ),
    most=5,
)
paths = joined(st.sampled_from(["/", "a", ".", "..", "/etc", "/mnt/models", " ", "\\"]), least=1)


def model_deployment(**spec: object) -> Manifest:
    least = {"model": {"uri": "s3://models/fraud"}, "runtime": {"name": "onnx"}}
    return resource("ModelDeployment", least | spec)


def model_runtime(**spec: object) -> Manifest:
    least = {
        "formats": [{"name": "onnx"}],
        "image": "example.com/server:1",
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    return resource("ModelRuntime", least | spec)


def resource(kind: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "mooring.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "fraud", "namespace": "default"},
        "spec": spec,
    }


def assert_both_agree(manifest: Manifest, create: Create) -> None:
    answer = create(manifest)
    try:
        lint(manifest)
        problems: tuple[str, ...] = ()
    except InvalidResource as refused:
        problems = refused.problems

    assert bool(problems) == (answer["kind"] == "Status"), (problems, answer)


@FEW
@given(durations)
def test_durations(create: Create, text: str) -> None:
    assert_both_agree(model_deployment(rollout={"progressDeadline": text}), create)


@FEW
@given(quantities)
def test_quantities(create: Create, text: str) -> None:
    runtime = {"name": "onnx", "resources": {"requests": {"cpu": text}}}
    assert_both_agree(model_deployment(runtime=runtime), create)


@FEW
@given(quantities, quantities)
def test_requests_and_limits(create: Create, request: str, limit: str) -> None:
    resources = {"requests": {"memory": request}, "limits": {"memory": limit}}
    assert_both_agree(model_deployment(runtime={"name": "onnx", "resources": resources}), create)


@FEW
@given(uris)
def test_uris(create: Create, text: str) -> None:
    assert_both_agree(model_deployment(model={"uri": text}), create)


@FEW
@given(names)
def test_names(create: Create, text: str) -> None:
    named = model_deployment() | {"metadata": {"name": text, "namespace": "default"}}
    assert_both_agree(named, create)


@FEW
@given(label_keys, label_values)
def test_labels(create: Create, key: str, value: str) -> None:
    runtime = {"name": "onnx", "podLabels": {key: value}}
    assert_both_agree(model_deployment(runtime=runtime), create)


@FEW
@given(templates)
def test_placeholders(create: Create, text: str) -> None:
    assert_both_agree(model_runtime(args=[text]), create)


@FEW
@given(paths)
def test_paths(create: Create, text: str) -> None:
    assert_both_agree(model_runtime(writablePaths=[text]), create)


@FEW
@given(st.lists(st.one_of(st.none(), st.integers(0, 101)), max_size=5))
def test_weights(create: Create, weights: list[int | None]) -> None:
    steps: list[Manifest] = [
        {"pause": {}} if weight is None else {"weight": weight} for weight in weights
    ]
    assert_both_agree(model_deployment(rollout={"steps": steps}), create)


numbers = st.sampled_from([-1, 0, 0.0, 0.02, 0.5, 0.95, 1, 1.0, 1.5, 2, 1e6])
times = joined(digits, st.sampled_from(["ms", "s", "m", ".", "0", "00.5", "300", " "]), least=1)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Manifest]:
    return st.fixed_dictionaries({}, optional=fields)


metrics = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["errors", "p95", "P95"])},
        optional={
            "errorRate": some(maxRatio=numbers, max=numbers, passRatio=numbers, passFloor=numbers),
            "latency": some(quantile=numbers, max=times, maxRatio=numbers, passRatio=numbers),
            "prometheus": st.fixed_dictionaries(
                {"query": st.just("up")}, optional={"min": numbers, "max": numbers}
            ),
        },
    ),
    max_size=3,
)
rollouts = some(
    steps=st.lists(
        st.sampled_from([{"weight": 5}, {"weight": 100}, {"mirror": 5}, {"pause": {}}]),
        min_size=1,
        max_size=1,
    ),
    bake=st.sampled_from([{"duration": "1m"}, {"duration": "1m", "previousWeight": 0}]),
    advance=st.sampled_from(["OnTime", "OnPass"]),
    onInconclusive=st.sampled_from(["Hold", "Promote"]),
)


@FEW
@given(times)
def test_latencies(create: Create, text: str) -> None:
    metric = {"name": "p95", "latency": {"max": text}}
    steps = {"steps": [{"weight": 5}]}
    assert_both_agree(model_deployment(analysis={"metrics": [metric]}, rollout=steps), create)


@FEW
@given(some(alpha=numbers, metrics=metrics), rollouts)
def test_analyses(create: Create, analysis: Manifest, rollout: Manifest) -> None:
    assert_both_agree(model_deployment(analysis=analysis, rollout=rollout), create)


@FEW
@given(rollouts, st.sampled_from(["errorRate", "latency", "prometheus"]), st.booleans())
def test_analyses_and_rollouts(
    create: Create, rollout: Manifest, kind: str, objective: bool
) -> None:
    limit = {"max": "1s" if kind == "latency" else 0.5} if objective else {"maxRatio": 1.5}
    metric = {"query": "up", "min": 1} if kind == "prometheus" else limit
    analysis = {"metrics": [{"name": "a", kind: metric}]}
    assert_both_agree(model_deployment(analysis=analysis, rollout=rollout), create)


@FEW
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["http", "grpc", "admin", "metrics"]),
                "containerPort": st.sampled_from([80, 8080, 9000]),
            },
            optional={"service": st.booleans()},
        ),
        max_size=3,
    )
)
def test_ports(create: Create, ports: list[Manifest]) -> None:
    assert_both_agree(model_runtime(ports=ports), create)
