"""Input resource and runtime -> exactly these objects.

Each folder holds ``input.yaml`` (a ModelDeployment and its runtime) and ``expected.yaml``. Read
the latter as a reviewer of every pod that Mooring makes; write it anew by

    pytest tests/golden --update-golden

Where it helps, ``then.yaml`` is applied when the first has been served.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.core.given import copied
from tests.core.world import World

from mooring.api import lint
from mooring.core.observed import NodeCache, RenderSettings, RuntimeSource
from mooring.core.plan import Plan
from mooring.core.render.router.observation import prepared_template

HERE = Path(__file__).parent
CASES = sorted(path.parent.name for path in HERE.glob("*/input.yaml"))
#: Moments at which a case is looked at, by folder; the others right after they are applied.
SERVED = {"autoscaling"}
#: What the administrator has set, by folder.
SETTINGS = {
    "image-volume": RenderSettings(image_volumes=True),
    "node-cache": RenderSettings(
        node_cache=NodeCache("http://cache.mooring-system.svc.cluster.local:8085", 8085)
    ),
}


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(documents: list[Any]) -> str:
    return str(
        yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100, explicit_start=True)
    )


def world_of(case: str) -> World:
    resource, *runtimes = yaml.safe_load_all((HERE / case / "input.yaml").read_text())
    world = World.with_spec(resource["spec"])
    world.settings = SETTINGS.get(case, world.settings)
    world.runtimes = {
        r["metadata"]["name"]: RuntimeSource(r["kind"], r["metadata"]["name"], r["spec"])
        for r in runtimes
    }
    return world


@cache
def plan_of(case: str) -> Plan:
    """The plan that a person wants to see: everything that should be, at the case's moment."""
    world = world_of(case)
    then = HERE / case / "then.yaml"
    if then.exists():
        world.serve()
        world.edit(**yaml.safe_load(then.read_text())["spec"])
        return world.settle()
    if case in SERVED:
        world.serve()
        world.serve()
        return world.settle()
    return world.round()


def readable(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without what only repeats other parts: the fingerprint, and the template in the record."""
    shown: dict[str, Any] = copied(manifest)
    meta = shown["metadata"]
    meta.pop("resourceVersion", None)
    del meta["annotations"]["mooring.dev/fingerprint"]
    if not meta["annotations"]:
        del meta["annotations"]
    if shown["kind"] == "ControllerRevision":
        shown["data"]["template"] = f"as in Deployment {meta['name']}"
        if "router" in shown["data"]:
            shown["data"]["router"] = "as in Deployment fraud-router"
    return shown


def rendered(case: str) -> str:
    plan = plan_of(case)
    scale = [f"# replicas of {ref}: {count}\n" for ref, count in plan.scale]
    return "".join(scale) + dump([readable(manifest) for manifest in plan.apply])


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, request: pytest.FixtureRequest) -> None:
    expected, found = HERE / case / "expected.yaml", rendered(case)
    if request.config.getoption("--update-golden", default=False):
        expected.write_text(found)
    assert found == expected.read_text()


@pytest.mark.parametrize("case", CASES)
def test_the_record_holds_exactly_the_template_that_runs(case: str) -> None:
    manifests = {(m["kind"], m["metadata"]["name"]): m for m in plan_of(case).apply}
    deployments = [m for m in manifests.values() if m["kind"] == "Deployment"]
    records = [m for m in manifests.values() if m["kind"] == "ControllerRevision"]
    assert deployments
    for live in deployments:
        if live["metadata"]["name"] == "fraud-collector":
            continue  # of the deployment, and of no revision
        if live["metadata"]["name"] == "fraud-router":
            routers = [record["data"]["router"] for record in records]
            if case == "monitoring":
                routers = [prepared_template(router) for router in routers]
            assert live["spec"]["template"] in routers
            continue
        record = manifests["ControllerRevision", live["metadata"]["name"]]
        assert record["data"]["template"] == live["spec"]["template"]


def pod_specs(case: str) -> list[dict[str, Any]]:
    return [m["spec"]["template"]["spec"] for m in plan_of(case).apply if m["kind"] == "Deployment"]


@pytest.mark.parametrize("case", CASES)
def test_every_pod_satisfies_pod_security_restricted_and_more(case: str) -> None:
    for spec in pod_specs(case):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser") != 0
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        kinds = {next(kind for kind in volume if kind != "name") for volume in spec["volumes"]}
        assert kinds <= {"configMap", "emptyDir", "image", "persistentVolumeClaim", "secret"}
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert not {"privileged", "procMount"} & security.keys()
            assert all("hostPort" not in port for port in container.get("ports", []))


@pytest.mark.parametrize("case", CASES)
def test_every_volume_is_used_sized_and_written_only_where_it_must_be(case: str) -> None:
    for spec in pod_specs(case):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        containers = [*spec.get("initContainers", []), *spec["containers"]]
        mounts = [mount for container in containers for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == set(volumes)
        assert all("sizeLimit" in v["emptyDir"] for v in volumes.values() if "emptyDir" in v)
        for container in containers:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths))
            for mount in container["volumeMounts"]:
                scratch = mount["name"] in ("tmp", "run") or mount["name"].startswith("writable-")
                fetched = container["name"] == "fetch" and "emptyDir" in volumes[mount["name"]]
                assert mount.get("readOnly", False) is not (scratch or fetched)


@pytest.mark.parametrize("case", CASES)
def test_credentials_are_for_the_fetcher_alone(case: str) -> None:
    for spec in pod_specs(case):
        (server,) = spec["containers"]
        assert "credentials" not in {mount["name"] for mount in server["volumeMounts"]}


@pytest.mark.parametrize("case", CASES)
def test_every_child_is_labelled_owned_and_in_the_namespace(case: str) -> None:
    for manifest in plan_of(case).apply:
        meta = manifest["metadata"]
        assert meta["namespace"] == "shop"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "mooring"
        assert meta["labels"]["mooring.dev/deployment"] == "fraud"
        (owner,) = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == ("uid-1", True)
        assert manifest["kind"] not in ("Role", "RoleBinding", "ClusterRole", "Secret")


@pytest.mark.parametrize("case", CASES)
def test_every_input_is_one_that_a_person_could_apply(case: str) -> None:
    for path in sorted((HERE / case).glob("[it]*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            assert lint(document).metadata.name == document["metadata"]["name"]
