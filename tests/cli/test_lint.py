"""``mooring lint``: the same rules as the cluster's, with the line of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mooring.cli import main

GOOD = """\
apiVersion: mooring.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: fraud
spec:
  model:
    uri: s3://models/fraud/v7
  runtime:
    name: onnx
  replicas: 2
"""


def lint(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["lint", *map(str, arguments)], input=stdin)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fraud.yaml"


def test_a_good_file_ends_with_0(file: Path) -> None:
    file.write_text(GOOD)
    found = lint(file)
    assert (found.exit_code, found.stdout) == (0, "")
    assert found.stderr == "1 resource is as the cluster wants.\n"


@pytest.mark.parametrize(
    ("line", "broken", "message"),
    [
        (7, ("s3://models/fraud/v7", "models/fraud"), "spec.model.uri: has no scheme"),
        (10, ("replicas: 2", "replica: 2"), "spec.replica: unknown field: did you mean replicas?"),
        (10, ("replicas: 2", 'replicas: "2"'), "spec.replicas: must be a whole number"),
        (6, ("    uri: s3://models/fraud/v7", "    name: x"), "spec.model.uri: is required"),
        (4, ("name: fraud", "name: Fraud"), "metadata.name"),
        (13, ("  replicas: 2", "  rollout:\n    steps:\n    - weight: 5\n    - weight: 500"),
         "spec.rollout.steps[1].weight: is 500"),
        (12, ("  replicas: 2", "  rollout:\n    steps:\n    - {weight: 5, pause: {}}"),
         "spec.rollout.steps[0]: set exactly one of"),
        (9, ("name: onnx", "name: [onnx]"), "spec.runtime.name: must be text"),
        (9, ("name: onnx", "version: 2\n    name: onnx"), "spec.runtime.version: must be text (in"),
        (9, ("name: onnx", "version: n\n    name: onnx"), "spec.runtime.version: must be text (in"),
        (11, ("  replicas: 2", "  rollout:\n    progressDeadline: 600"),
         "spec.rollout.progressDeadline: is 600, but must be a duration such as 30s"),
        (12, ("  replicas: 2", "  analysis:\n    metrics:\n    - {name: p95, latency: {max: 300}}"),
         "spec.analysis.metrics[0].latency.max: is 300, but must be a positive time such as 300ms"),
    ],
)  # fmt: skip
def test_every_problem_is_named_with_its_line(
    file: Path, line: int, broken: tuple[str, str], message: str
) -> None:
    file.write_text(GOOD.replace(*broken))
    found = lint(file)
    assert found.exit_code == 1
    assert found.stdout.startswith(f"{file}:{line}: {message}"), found.stdout


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n---\n", "kind: Service\n"])
def test_a_file_without_resources_of_ours_is_not_said_to_be_right(file: Path, text: str) -> None:
    file.write_text(text)
    found = lint(file)
    assert found.exit_code == 0
    last = found.stderr.splitlines()[-1]
    assert last == "Nothing was checked: there is no resource of mooring.dev here."


def test_a_file_that_is_no_text_is_a_problem_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    (tmp_path / "b.yaml").write_text(GOOD.replace("uri", "url"))
    found = lint(tmp_path)
    assert found.exit_code == 1
    first, *others = found.stdout.splitlines()
    assert first == f"{tmp_path}/a.yaml: this is not UTF-8 text (byte 4), which Kubernetes reads"
    assert [line.split(": ")[0] for line in others] == [
        f"{tmp_path}/b.yaml:6",
        f"{tmp_path}/b.yaml:7",
    ]


@pytest.mark.parametrize("text", [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD])
def test_line_ends_and_marks_of_other_systems_do_no_harm(text: str) -> None:
    assert lint("-", stdin=text).exit_code == 0


def test_several_documents_and_other_kinds_are_told_apart(file: Path) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: fraud}\n"
    file.write_text(f"{service}---\n{GOOD}---\n---\n{GOOD.replace('uri', 'url')}")
    found = lint(file)
    assert found.exit_code == 1
    assert found.stderr == f"skipped: {file}:1: Service (v1) is not of mooring.dev\n"
    assert [text.split(": ")[0] for text in found.stdout.splitlines()] == [
        f"{file}:22", f"{file}:23"
    ]  # fmt: skip


def test_a_kind_of_ours_that_does_not_exist_is_a_problem(file: Path) -> None:
    file.write_text(GOOD.replace("ModelDeployment", "ModelDeploymnt"))
    assert f"{file}:2: kind: 'ModelDeploymnt' is not one of" in lint(file).stdout


def test_a_version_of_ours_that_does_not_exist_is_a_problem(file: Path) -> None:
    file.write_text(GOOD.replace("v1alpha1", "v9"))
    found = lint(file)
    assert found.exit_code == 1
    assert f"{file}:1: apiVersion: " in found.stdout


def test_the_items_of_a_list_are_checked_each(file: Path) -> None:
    item = json.dumps({"apiVersion": "mooring.dev/v1alpha1", "kind": "ModelDeployment"})
    file.write_text(f'{{"apiVersion": "v1", "kind": "List", "items": [\n{item},\n{item}]}}')
    lines = {text.split(": ")[0] for text in lint(file).stdout.splitlines()}
    assert lines == {f"{file}:2", f"{file}:3"}


def test_standard_input_and_folders_are_read(file: Path) -> None:
    file.write_text(GOOD)
    (file.parent / "notes.txt").write_text("{")
    assert lint("-", stdin=GOOD).exit_code == 0
    found = lint("-", file.parent, stdin="kind: [")
    assert found.exit_code == 1
    assert found.stdout.startswith("<stdin>:")
    assert "this is not YAML" in found.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "1: this is not YAML: "),
        ("a: b: c", "1: this is not YAML: "),
        ("a: 1\n\tb: 2", "2: this is not YAML: "),
        ("just text", "1: must be an object with apiVersion, kind and spec"),
        ("&a [*a]", "1: an alias holds itself"),
        (GOOD + "  replicas: 3", "11: the key replicas stands here a second time"),
        ("apiVersion: mooring.dev/v1alpha1\nkind: ModelDeployment\n? [1]\n: 2", "this is not"),
    ],
)
def test_what_kubernetes_could_not_read_is_a_problem(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    found = lint(file)
    assert found.exit_code == 1
    assert message in found.stdout


def test_aliases_that_grow_a_small_file_into_a_huge_one_are_refused(file: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    file.write_text("l0: &l0 [x]\n" + "\n".join(levels))
    assert "its aliases make it far too large" in lint(file).stdout


def test_what_looks_like_a_date_or_a_time_is_text_as_in_kubernetes(file: Path) -> None:
    file.write_text(GOOD + "  traffic: {timeout: 10:30}\n")
    assert "spec.traffic.timeout: must be" in lint(file).stdout
    file.write_text(GOOD.replace("uri: s3://models/fraud/v7", "uri: 2026-11-21"))
    assert "spec.model.uri: has no scheme" in lint(file).stdout


def test_problems_are_data_when_asked_for(file: Path) -> None:
    file.write_text(GOOD.replace("replicas", "replica"))
    value = json.loads(lint(file, "-o", "json").stdout)
    assert value["checked"] == 1
    assert value["problems"] == [
        {"file": str(file), "line": 10, "path": "spec.replica",
         "message": "unknown field: did you mean replicas?"},
    ]  # fmt: skip


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert lint(tmp_path / "none.yaml").exit_code == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sum(rate(requests_total[5m]) by (pod", "character"),
        ("rate(requests_total{ {{ selectors }} }[5m])", "unknown placeholder {{ selectors }}"),
        ("requests_total[5m]", "the query gives a range of values"),
        ("vector(1)", "reads no series"),
        ('up{namespace="a"} / up{namespace="b"}', "only the ModelDeployment's own namespace a"),
    ],
)
def test_a_query_that_would_never_be_sent_is_named_with_its_line(
    file: Path, query: str, message: str
) -> None:
    file.write_text(
        GOOD
        + f"""\
  rollout:
    steps: [{{weight: 5, duration: 10m}}]
  analysis:
    metrics:
    - name: errors
      errorRate: {{max: 0.02}}
    - name: business
      prometheus:
        query: |-
          {query}
        min: 0.9
"""
    )
    found = lint(file)
    assert found.exit_code == 1
    assert ":19: spec.analysis.metrics[1].prometheus.query: " in found.stdout
    assert message in found.stdout


def test_the_place_in_a_query_is_that_of_the_text_with_its_placeholders(file: Path) -> None:
    file.write_text(
        GOOD
        + """\
  rollout: {bake: {duration: 30m}}
  analysis:
    metrics:
    - {name: business, prometheus: {query: "up{ {{ selector }} } +* 2", min: 0.9}}
"""
    )
    assert "(at character 23)" in lint(file).stdout


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("latency: {max: 2000s}", "max exceeds the router's largest bucket"),
        ("predictionShift: {maxPSI: 0.2}", "nobody counts the predictions of both revisions"),
    ],
)
def test_what_nobody_measures_is_named_before_the_operator_does(
    file: Path, metric: str, message: str
) -> None:
    file.write_text(
        GOOD
        + f"""\
  rollout: {{steps: [{{weight: 5, duration: 10m}}]}}
  analysis:
    metrics:
    - {{name: errors, errorRate: {{max: 0.02}}}}
    - {{name: other, {metric}}}
"""
    )
    found = lint(file)
    assert found.exit_code == 1
    assert f":15: spec.analysis.metrics[1]: {message}" in found.stdout


def test_the_router_s_counts_take_its_router(file: Path) -> None:
    file.write_text(
        GOOD
        + """\
  traffic: {router: replicas}
  rollout: {steps: [{weight: 5, duration: 10m}]}
  analysis: {metrics: [{name: errors, errorRate: {maxRatio: 2}}]}
"""
    )
    found = lint(file)
    assert found.exit_code == 1
    assert "spec.analysis.metrics[0]: nobody measures it with traffic.router replicas" in (
        found.stdout
    )


DATA = """\
  monitoring:
    reference: {configMap: fraud-reference}
    features:
    - {name: city, pattern: "[A-Z]\\\\p{L}+"}
    - {name: sender, pattern: "[\\\\w-.]+@[\\\\w-.]+"}
"""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DATA.replace("[A-Z]", "(?=x)"),
         ":14: spec.monitoring.features[0].pattern: no regular expression of RE2: invalid perl"),
        (DATA.replace("[A-Z]", "[0-9]{1001}"),
         "no regular expression of RE2: invalid repetition size: {1001}"),
        (DATA.replace("L}+", "L}{1000}"), "no regular expression of RE2: pattern too large"),
        ("  traffic: {router: replicas}\n" + DATA,
         ":12: spec.monitoring: router replicas copies no requests"),
        ("  retraining: {action: {none: {}}, triggers: [{drift: {for: 1h}}]}\n",
         "spec.retraining.triggers[0].drift: nobody looks for drift: set spec.monitoring"),
        (DATA + "  retraining: {action: {none: {}}, triggers: [{schedule: 61 3 * * 0}]}\n",
         "spec.retraining.triggers[0].schedule: schedule: '61' is no minute: use 0 to 59"),
        (DATA + "  retraining: {action: {none: {}}, triggers: "
         "[{performance: {metric: f1, below: 0.9}}]}\n",
         "spec.retraining.triggers[0].performance.metric: there is no such metric: use one of"),
        (DATA + "  retraining: {action: {none: {}}, triggers: "
         "[{newData: {query: 'sum(', atLeast: 5}}]}\n",
         "spec.retraining.triggers[0].newData.query: "),
    ],
)  # fmt: skip
def test_what_nothing_would_ever_come_of_is_named(file: Path, spec: str, message: str) -> None:
    file.write_text(GOOD + spec)
    found = lint(file)
    assert found.exit_code == 1
    assert message in found.stdout


def test_data_that_can_be_watched_is_no_problem(file: Path) -> None:
    file.write_text(
        GOOD
        + DATA
        + """\
  retraining:
    action: {none: {}}
    triggers:
    - {drift: {for: 1h}}
    - {schedule: 0 3 * * 0}
    - {performance: {metric: auc, below: 0.8}}
    - {newData: {query: "sum(increase(rows_total[{{ window }}]))", atLeast: 100000}}
"""
    )
    assert lint(file).stdout == ""


NAMESPACED = """\
  analysis:
    metrics: [{name: sold, prometheus: {query: 'sum(sold_total{namespace="shop"})', max: 5}}]
  rollout: {bake: {duration: 30m}}
  retraining:
    action: {none: {}}
    triggers: [{newData: {query: 'sum(increase(rows_total{namespace="shop"}[1h]))', atLeast: 5}}]
"""


@pytest.mark.parametrize("spec", [NAMESPACED, NAMESPACED[NAMESPACED.index("  retraining") :]])
def test_a_file_without_a_namespace_is_of_the_one_that_its_queries_name(
    file: Path, spec: str
) -> None:
    file.write_text(GOOD + spec)
    assert lint(file).stdout == ""
    file.write_text(GOOD.replace("  name: fraud\n", "  name: fraud\n  namespace: shop\n", 1) + spec)
    assert lint(file).stdout == ""


def test_a_file_without_a_namespace_is_of_one_and_not_of_several(file: Path) -> None:
    file.write_text(GOOD + NAMESPACED.replace('"shop"}[1h]', '"mall"}[1h]'))
    assert (
        'spec.retraining.triggers[0].newData.query: a selector asks for namespace="mall": only '
        "the ModelDeployment's own namespace shop can be read"
    ) in lint(file).stdout
