"""What one object shows to be wrong is refused, offline and by the API server, with the way out.

Every case runs through both: the same rule must catch it, name the field, and say what to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mooring.api import InvalidResource, lint

Manifest = dict[str, Any]
Create = Callable[[Manifest], Manifest]

DIGEST = "sha256:" + "0123456789abcdef" * 4

MODEL_DEPLOYMENT: Manifest = {
    "apiVersion": "mooring.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "fraud", "namespace": "default"},
    "spec": {"model": {"uri": "s3://models/fraud/v7"}, "runtime": {"name": "onnx"}},
}
MODEL_RUNTIME: Manifest = {
    "apiVersion": "mooring.dev/v1alpha1",
    "kind": "ModelRuntime",
    "metadata": {"name": "mine", "namespace": "default"},
    "spec": {
        "formats": [{"name": "onnx"}],
        "image": "example.com/server:1",
        "ports": [{"name": "http", "containerPort": 8080}],
    },
}
RETRAINING_REQUEST: Manifest = {
    "apiVersion": "mooring.dev/v1alpha1",
    "kind": "RetrainingRequest",
    "metadata": {"name": "again", "namespace": "default"},
    "spec": {
        "deploymentRef": {"name": "fraud"},
        "revision": "abc",
        "trigger": {"type": "Manual"},
        "idempotencyKey": "abc-manual-1",
    },
}


@dataclass(frozen=True)
class Case:
    """A valid object, what is put into it, the path that must be named, and the words to say."""

    title: str
    changes: Manifest
    path: str
    says: str
    base: Manifest = field(default_factory=lambda: MODEL_DEPLOYMENT)


def steps(*steps: Manifest) -> Manifest:
    return {"spec.rollout": {"steps": list(steps)}}


def runtime(title: str, changes: Manifest, path: str, says: str) -> Case:
    return Case(title, changes, path, says, MODEL_RUNTIME)


def env(*variables: Manifest) -> Manifest:
    return {"spec.runtime.env": list(variables)}


def resources(**parts: Manifest) -> Manifest:
    return {"spec.runtime.resources": parts}


CASES = (
    Case(
        "replicas and autoscaling",
        {"spec.replicas": 3, "spec.autoscaling": {"maxReplicas": 5}},
        "spec",
        "replicas and autoscaling exclude each other: remove replicas",
    ),
    Case(
        "minReplicas over maxReplicas",
        {"spec.autoscaling": {"minReplicas": 6, "maxReplicas": 5}},
        "spec.autoscaling",
        "minReplicas exceeds maxReplicas: lower minReplicas",
    ),
    Case(
        "an autoscaling metric of no known type",
        {"spec.autoscaling": {"maxReplicas": 5, "metrics": [{"type": "Cpu"}]}},
        "spec.autoscaling.metrics[0]",
        "type must be one of Resource, ContainerResource, Pods, Object, External",
    ),
    Case("negative replicas", {"spec.replicas": -1}, "spec.replicas", "0"),
    Case("absurd replicas", {"spec.replicas": 1_000_000}, "spec.replicas", "1000"),
    # --- model
    Case(
        "a URI without a scheme",
        {"spec.model.uri": "models/fraud/v7"},
        "spec.model.uri",
        "has no scheme: write where the model is, such as s3://bucket/path",
    ),
    Case(
        "an empty URI",
        {"spec.model.uri": ""},
        "spec.model.uri",
        "has no scheme: write where the model is, such as s3://bucket/path",
    ),
    *(
        Case(
            f"a URI of {scheme}",
            {"spec.model.uri": f"{scheme}://models/fraud"},
            "spec.model.uri",
            "use s3, https, pvc or file",
        )
        for scheme in ("oci", "gs", "az", "hf", "mlflow", "http", "ftp", "S3")
    ),
    Case(
        "an s3 URI without a path",
        {"spec.model.uri": "s3://models"},
        "spec.model.uri",
        "write s3://bucket/path",
    ),
    Case(
        "a password in a URI",
        {"spec.model.uri": "https://me:secret@example.com/model.onnx"},
        "spec.model.uri",
        "user and password belong in spec.model.credentials",
    ),
    Case(
        "a claim that is no name",
        {"spec.model.uri": "pvc://My_Claim/model"},
        "spec.model.uri",
        "pvc://claim/path",
    ),
    Case(
        "file with a host",
        {"spec.model.uri": "file://model.onnx"},
        "spec.model.uri",
        "file:///path",
    ),
    Case(
        "a path that climbs",
        {"spec.model.uri": "pvc://models/../../etc"},
        "spec.model.uri",
        "must not contain the path segment '..'",
    ),
    Case(
        "a blank in a URI",
        {"spec.model.uri": "s3://models/my model"},
        "spec.model.uri",
        "without blanks",
    ),
    Case(
        "a newline at the end of a URI",
        {"spec.model.uri": "s3://models/fraud\n"},
        "spec.model.uri",
        "without blanks",
    ),
    Case(
        "a digest with a file URI",
        {"spec.model.uri": "file:///models/fraud", "spec.model.digest": DIGEST},
        "spec.model",
        "remove digest, and pin the image by its digest instead",
    ),
    *(
        Case(
            f"a digest that is {title}",
            {"spec.model.digest": digest},
            "spec.model.digest",
            "must be sha256: and 64 lower-case hexadecimal digits",
        )
        for title, digest in (
            ("md5", "md5:d41d8cd98f00b204e9800998ecf8427e"),
            ("too short", "sha256:9f2c"),
            ("upper case", DIGEST.upper().replace("SHA256", "sha256")),
            ("bare", DIGEST.removeprefix("sha256:")),
        )
    ),
    Case(
        "a format in capitals",
        {"spec.model.format": {"name": "ONNX"}},
        "spec.model.format.name",
        "lower-case letters, digits and '-', such as onnx",
    ),
    Case(
        "a served name with a slash",
        {"spec.model.name": "team/fraud"},
        "spec.model.name",
        "must consist of letters, digits",
    ),
    Case(
        "a Secret's name in capitals",
        {"spec.model.credentials": {"secretName": "My_Secret"}},
        "spec.model.credentials.secretName",
        "must be the name of a Kubernetes object",
    ),
    Case("no model", {"spec.model": None}, "spec.model", "equired"),
    Case("no runtime", {"spec.runtime": None}, "spec.runtime", "equired"),
    # --- metadata
    Case(
        "a name that is too long",
        {"metadata.name": "a" * 41},
        "metadata.name",
        "at most 40 lower-case letters, digits and '-'",
    ),
    Case(
        "a name that begins with a digit",
        {"metadata.name": "7fraud"},
        "metadata.name",
        "beginning with a letter",
    ),
    Case(
        "a name with a dot",
        {"metadata.name": "fraud.v7"},
        "metadata.name",
        "choose a shorter or simpler name",
    ),
    # --- runtime
    Case(
        "a version that is no tag",
        {"spec.runtime.version": "my tag"},
        "spec.runtime.version",
        "must be an image tag",
    ),
    Case(
        "an environment variable twice",
        env({"name": "A", "value": "1"}, {"name": "A", "value": "2"}),
        "spec.runtime.env",
        "Duplicate value",
    ),
    Case(
        "an environment variable with a blank in its name",
        env({"name": "A B", "value": "1"}),
        "spec.runtime.env[0].name",
        "must be the name of an environment variable",
    ),
    Case(
        "a value and its source",
        env(
            {
                "name": "A",
                "value": "1",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
            }
        ),
        "spec.runtime.env[0]",
        "value and valueFrom exclude each other: remove one of them",
    ),
    Case(
        "a source of nothing",
        env({"name": "A", "valueFrom": {}}),
        "spec.runtime.env[0].valueFrom",
        "set exactly one of secretKeyRef and configMapKeyRef",
    ),
    *(
        Case(
            f"{amount!r} as an amount of memory",
            resources(requests={"memory": amount}),
            "spec.runtime.resources.requests[memory]",
            "must be a resource quantity of zero or more, such as 500m, 2, 512Mi or 1Gi",
        )
        for amount in ("-1Gi", "lots", "1GB", "512 Mi", -1, "", "1e", "0x10", "١Gi")
    ),
    Case(
        "more CPU requested than allowed",
        resources(requests={"cpu": 2}, limits={"cpu": "1500m"}),
        "spec.runtime.resources",
        "requests must not exceed limits for the same resource: raise the entry in limits",
    ),
    Case(
        "more memory requested than allowed",
        resources(requests={"memory": "1Gi"}, limits={"memory": "1000M"}),
        "spec.runtime.resources",
        "requests must not exceed limits for the same resource: raise the entry in limits",
    ),
    Case(
        "a pod label of the operator",
        {"spec.runtime.podLabels": {"mooring.dev/revision": "mine"}},
        "spec.runtime.podLabels",
        "set by the operator: leave them out",
    ),
    Case(
        "the label by which children are found",
        {"spec.runtime.podLabels": {"app.kubernetes.io/managed-by": "me"}},
        "spec.runtime.podLabels",
        "set by the operator: leave them out",
    ),
    Case(
        "a pod label with a bad key",
        {"spec.runtime.podLabels": {"cost centre": "7"}},
        "spec.runtime.podLabels",
        "a key is an optional DNS prefix",
    ),
    Case(
        "a pod label with a bad value",
        {"spec.runtime.podLabels": {"team": "fraud & risk"}},
        "spec.runtime.podLabels[team]",
        "must be a label value",
    ),
    # --- rollout
    *(
        Case(
            f"a duration of {duration!r}",
            steps({"weight": 5, "duration": duration}),
            "spec.rollout.steps[0].duration",
            "so write 168h, not 7d",
        )
        for duration in ("7d", "10", "", "-5m", "5 m", "1w", "PT5M", "99999999h", "5m1h")
    ),
    Case(
        "a deadline in days",
        {"spec.rollout": {"progressDeadline": "1d"}},
        "spec.rollout.progressDeadline",
        "so write 168h, not 7d",
    ),
    Case(
        "no time to start",
        {"spec.rollout": {"progressDeadline": "0s"}},
        "spec.rollout.progressDeadline",
        "must be at least 1s",
    ),
    Case(
        "an empty list of steps",
        {"spec.rollout": {"steps": []}},
        "spec.rollout.steps",
        "steps is empty: remove steps",
    ),
    Case(
        "a step of no kind",
        steps({"duration": "10m"}),
        "spec.rollout.steps[0]",
        "set exactly one of weight, mirror, match, pause and replicas",
    ),
    Case(
        "a step of two kinds",
        steps({"weight": 5, "mirror": 100}),
        "spec.rollout.steps[0]",
        "set exactly one of weight, mirror, match, pause and replicas",
    ),
    Case(
        "a pause that ends by itself",
        steps({"pause": {}, "duration": "10m"}),
        "spec.rollout.steps[0]",
        "pause waits for promote and takes no duration: remove duration",
    ),
    Case(
        "weights that fall",
        steps({"weight": 50}, {"pause": {}}, {"weight": 25}),
        "spec.rollout.steps",
        "weights must rise from step to step",
    ),
    Case(
        "weights that stay",
        steps({"weight": 25}, {"weight": 25}),
        "spec.rollout.steps",
        "make two steps of the same weight one",
    ),
    Case("a weight over a hundred", steps({"weight": 101}), "spec.rollout.steps[0].weight", "100"),
    Case("a weight of nothing", steps({"weight": 0}), "spec.rollout.steps[0].weight", "1"),
    Case(
        "a header twice",
        steps({"match": [{"header": "x", "exact": "1"}, {"header": "x", "exact": "2"}]}),
        "spec.rollout.steps[0].match",
        "Duplicate value",
    ),
    Case(
        "an absurd history",
        {"spec.rollout": {"revisionHistoryLimit": 1000}},
        "spec.rollout.revisionHistoryLimit",
        "100",
    ),
    # --- wrong types
    Case("replicas as text", {"spec.replicas": "3"}, "spec.replicas", "must be"),
    Case(
        "a number as a value",
        env({"name": "A", "value": 1}),
        "spec.runtime.env[0].value",
        "must be",
    ),
    Case("a list for an object", {"spec.model": []}, "spec.model", "must be"),
    Case("an object for a list", {"spec.runtime.args": {}}, "spec.runtime.args", "must be"),
    # --- ModelRuntime
    runtime(
        "an unknown placeholder",
        {"spec.args": ["--name={{ model.nmae }}"]},
        "spec.args[0]",
        "use {{ model.name }}, {{ model.path }}",
    ),
    runtime(
        "an unknown placeholder beside a known one",
        {"spec.config": [{"path": "/etc/c", "content": "{{ model.name }}: {{ uri }}"}]},
        "spec.config[0].content",
        "has a placeholder that does not exist",
    ),
    runtime(
        "an unknown placeholder in the value of a variable",
        {"spec.env": [{"name": "A", "value": "{{ pod }}"}]},
        "spec.env[0].value",
        "has a placeholder that does not exist",
    ),
    runtime(
        "a version that nobody gives",
        {"spec.image": "example.com/server:{{ runtime.version }}"},
        "spec.image",
        "set version to the default tag",
    ),
    runtime(
        "metrics on a port that does not exist",
        {"spec.metrics": {"port": "metrics"}},
        "spec.metrics",
        "metrics.port must be the name of one of ports: correct it or add the port",
    ),
    runtime(
        "a probe of two kinds",
        {
            "spec.readinessProbe": {
                "tcpSocket": {"port": 8080},
                "httpGet": {"path": "/", "port": 8080},
            }
        },
        "spec.readinessProbe",
        "set exactly one of httpGet, tcpSocket and exec",
    ),
    runtime(
        "a probe of a port out of range",
        {"spec.readinessProbe": {"tcpSocket": {"port": 70000}}},
        "spec.readinessProbe.tcpSocket.port",
        "must be a port number from 1 to 65535",
    ),
    runtime(
        "a probe of a port that has no name",
        {"spec.livenessProbe": {"tcpSocket": {"port": "htpp"}}},
        "spec",
        "probes name a port that is not one of ports",
    ),
    runtime(
        "a liveness probe with a success threshold",
        {"spec.livenessProbe": {"tcpSocket": {"port": 8080}, "successThreshold": 2}},
        "spec",
        "livenessProbe and startupProbe take no successThreshold but 1: remove it",
    ),
    runtime(
        "a relative path of a configuration file",
        {"spec.config": [{"path": "etc/c", "content": ""}]},
        "spec.config[0].path",
        "must be an absolute path",
    ),
    runtime(
        "a path that climbs",
        {"spec.writablePaths": ["/var/../etc"]},
        "spec.writablePaths[0]",
        "must not contain the path segments '.' and '..'",
    ),
    runtime(
        "a path over the model",
        {"spec.writablePaths": ["/mnt/models/cache"]},
        "spec.writablePaths[0]",
        "must not lie in /mnt/models",
    ),
    runtime("root", {"spec.security": {"runAsUser": 0}}, "spec.security.runAsUser", "1"),
    runtime(
        "a user that is not set",
        {"spec.security": {"runAsUser": 1000, "setRunAsUser": False}},
        "spec.security",
        "runAsUser has no effect with setRunAsUser: false: remove one of them",
    ),
    runtime("no formats", {"spec.formats": []}, "spec.formats", "at least 1"),
    runtime(
        "a port twice",
        {
            "spec.ports": [
                {"name": "http", "containerPort": 1},
                {"name": "http", "containerPort": 2},
            ]
        },
        "spec.ports",
        "Duplicate value",
    ),
    # --- RetrainingRequest
    Case(
        "a data window that ends before it begins",
        {"spec.dataWindow": {"start": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}},
        "spec.dataWindow",
        "start must be earlier than end",
        RETRAINING_REQUEST,
    ),
)


def manifest(base: Manifest, changes: Manifest) -> Manifest:
    """The base with the value at each dotted path replaced; None removes it."""
    changed = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = changed
        for part in parents:
            place = place.setdefault(part, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    return changed


def by_title(case: Case) -> str:
    return case.title


@pytest.mark.parametrize("case", CASES, ids=by_title)
def test_offline_it_is_refused_with_the_field_and_the_way_out(case: Case) -> None:
    with pytest.raises(InvalidResource) as refused:
        lint(manifest(case.base, case.changes))

    (line,) = refused.value.problems
    assert line.startswith(case.path)
    assert case.says in line


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=by_title)
def test_at_apply_it_is_refused_with_the_field_and_the_way_out(case: Case, create: Create) -> None:
    answer = create(manifest(case.base, case.changes))

    assert answer["reason"] == "Invalid", answer
    causes = [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]
    assert any(field.startswith(case.path) and case.says in text for field, text in causes), causes
    assert not [text for _, text in causes if "evaluation error" in text]


COMPLETE: Manifest = manifest(
    MODEL_DEPLOYMENT,
    {
        "spec.model": {
            "uri": "https://example.com/models/fraud.tar.gz",
            "digest": DIGEST,
            "format": {"name": "onnx", "version": "1"},
            "credentials": {"secretName": "store"},
            "name": "Fraud_v7.1",
        },
        "spec.runtime": {
            "name": "onnx",
            "version": "1.2.3-cpu",
            "env": [
                {"name": "A", "value": ""},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "args": ["--threads", "2"],
            "resources": {
                "requests": {"cpu": 1, "memory": ".5Gi", "nvidia.com/gpu": "1"},
                "limits": {"cpu": "1e0", "memory": "512Mi", "nvidia.com/gpu": 1},
            },
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "serviceAccountName": "models",
            "imagePullSecrets": [{"name": "registry"}],
            "podLabels": {"example.com/team": "risk"},
            "podAnnotations": {"sidecar.istio.io/inject": "false"},
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {
                        "matchLabels": {"team": "risk"},
                        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
                    },
                }
            ],
            "priorityClassName": "high",
        },
        "spec.autoscaling": {
            "minReplicas": 2,
            "maxReplicas": 10,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 60},
                    },
                }
            ],
        },
        "spec.rollout": {
            "steps": [
                {"weight": 5, "duration": "1h30m"},
                {"mirror": 100, "duration": "1.5h"},
                {"match": [{"header": "x-tester", "exact": "yes"}]},
                {"replicas": 2},
                {"pause": {}},
                {"weight": 50, "duration": "100ms"},
                {"weight": 100},
            ],
            "progressDeadline": "168h",
            "revisionHistoryLimit": 0,
        },
    },
)

COMPLETE_RUNTIME: Manifest = manifest(
    MODEL_RUNTIME,
    {
        "spec": {
            "description": "A server of ours.",
            "formats": [{"name": "onnx", "versions": ["1", "2"]}, {"name": "sklearn"}],
            "protocols": ["open-inference-v2", "custom"],
            "image": "example.com/server:{{ runtime.version }}",
            "version": "1.0",
            "imagePullPolicy": "IfNotPresent",
            "command": ["serve"],
            "args": [
                "--model={{ model.path }}/{{model.name}}",
                "--from={{ model.uri }}",
                '--json={"a": {"b": 1}}',
                "--of={{ namespace }}/{{ revision }}",
            ],
            "env": [{"name": "A", "value": "{{ model.name }}"}],
            "ports": [
                {"name": "http", "containerPort": 8080, "appProtocol": "http"},
                {"name": "metrics", "containerPort": 8081, "service": False},
            ],
            "readinessProbe": {
                "httpGet": {"path": "/v2/models/{{ model.name }}/ready", "port": "http"},
                "initialDelaySeconds": 0,
                "periodSeconds": 5,
                "timeoutSeconds": 2,
                "failureThreshold": 3,
                "successThreshold": 2,
            },
            "livenessProbe": {"exec": {"command": ["check", "{{ model.name }}"]}},
            "startupProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 100},
            "resources": {"requests": {"cpu": "100m"}},
            "config": [{"path": "/etc/server/c.json", "content": '{"model": "{{ model.name }}"}'}],
            "security": {"runAsUser": 1000},
            "writablePaths": ["/home/server", "/var/cache/x"],
            "terminationGracePeriodSeconds": 30,
            "metrics": {"port": "metrics", "path": "/m"},
            "layout": "triton",
        }
    },
)

GOOD = {
    "the least ModelDeployment": MODEL_DEPLOYMENT,
    "every field of a ModelDeployment": COMPLETE,
    "a name of 40 characters": manifest(MODEL_DEPLOYMENT, {"metadata.name": "a" * 40}),
    "replicas of zero": manifest(MODEL_DEPLOYMENT, {"spec.replicas": 0}),
    "a whole claim": manifest(MODEL_DEPLOYMENT, {"spec.model.uri": "pvc://models"}),
    "a port of an https URI": manifest(
        MODEL_DEPLOYMENT, {"spec.model.uri": "https://[::1]:8443/a/b?c=d#e"}
    ),
    "a file URI": manifest(MODEL_DEPLOYMENT, {"spec.model.uri": "file:///opt/model.onnx"}),
    "the least ModelRuntime": MODEL_RUNTIME,
    "every field of a ModelRuntime": COMPLETE_RUNTIME,
    "the least RetrainingRequest": RETRAINING_REQUEST,
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_offline_what_is_right_passes(good: Manifest) -> None:
    assert lint(good).as_dict()["kind"] == good["kind"]


@pytest.mark.apiserver
@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_at_apply_what_is_right_passes(good: Manifest, create: Create) -> None:
    answer = create(good)

    assert answer["kind"] == good["kind"], answer
    for name, value in good["spec"].items():
        assert answer["spec"][name] == value
