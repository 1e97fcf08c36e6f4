"""A real cluster on this machine, from nothing to nothing; needs root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from mooring_dev import oci, processes, prometheus
from mooring_dev.cluster import Cluster
from mooring_dev.errors import DevError
from mooring_dev.packages import ensure_program
from mooring_dev.paths import cluster_directory
from mooring_dev.s3 import S3Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="the local provider needs root"),
]

T = TypeVar("T")
NAME = "tests-dev"
IMAGE = "mooring.dev/test-shell:dev"
# Loopback addresses at which NodePorts are, whatever offset the cluster was given.
NODE_PORT_HOSTS = pytest.mark.allow_hosts([f"127.0.0.{1 + offset}" for offset in range(100)])

WORKLOAD = """
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: web
          image: mooring.dev/test-shell:dev
          command: [/bin/sh, -c, "echo serving; exec httpd -f -p 8080 -h /www"]
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""


def eventually(what: str, attempt: Callable[[], T], seconds: float = 30.0) -> T:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (OSError, DevError, AssertionError) as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}") from error
            time.sleep(0.2)


def libraries(program: str) -> list[Path]:
    """What a dynamically linked program needs at run time."""
    lines = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in lines.splitlines() for word in line.split()]
    return [Path(word) for word in words if word.startswith("/")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shell, a web server and a client, from this machine's own programs."""
    busybox = ensure_program("busybox", "busybox-static")
    files = {"/bin/busybox": oci.File(Path(busybox).read_bytes(), 0o755)}
    for applet in ("sh", "httpd", "nslookup", "cat", "timeout"):
        files[f"/bin/{applet}"] = oci.File(link="busybox")
    # A static program of glibc cannot look up names; bash can, and speaks TCP.
    files["/bin/bash"] = oci.File(Path("/bin/bash").read_bytes(), 0o755)
    for library in libraries("/bin/bash"):
        files[str(library)] = oci.File(library.resolve().read_bytes(), 0o755)
    files["/www/index.html"] = oci.File(b"hello\n")
    target = tmp_path_factory.mktemp("image") / "shell.tar"
    return oci.write_image(target, IMAGE, files, entrypoint=("/bin/sh",))


@pytest.fixture(scope="module")
def cluster(image: Path) -> Iterator[Cluster]:
    made = Cluster.up(NAME)
    try:
        made.import_image(image)
        made.kubectl("apply", "-f", "-", input=WORKLOAD)
        made.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
        yield made
    finally:
        made.down()


def http_get(cluster: Cluster, host: str, port: int = 80) -> str:
    """The answer to a request that a pod makes."""
    request = f"GET / HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/{host}/{port}; printf '{request}' >&3; cat <&3"
    command = ("/bin/timeout", "5", "/bin/bash", "-c", script)
    return cluster.kubectl("-n", "shop", "exec", "deployment/web", "--", *command)


def test_a_pod_finds_a_service_by_name(cluster: Cluster) -> None:
    look = ("exec", "deployment/web", "--", "nslookup", "web.shop.svc.cluster.local")
    address = cluster.kubectl("-n", "shop", "get", "svc", "web", "-o=jsonpath={.spec.clusterIP}")
    assert address in cluster.kubectl("-n", "shop", *look)


def test_a_pod_reaches_every_pod_behind_a_service_itself_included(cluster: Cluster) -> None:
    for _ in range(8):
        assert "hello" in eventually("the Service answers", lambda: http_get(cluster, "web"))


@NODE_PORT_HOSTS
def test_the_machine_reaches_a_node_port_on_loopback(cluster: Cluster) -> None:
    url = f"http://{cluster.node_port_address}:30080/"

    def get() -> bytes:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bytes(answer.read())

    assert eventually("the NodePort answers", get) == b"hello\n"


def test_logs_can_be_read(cluster: Cluster) -> None:
    assert "serving" in cluster.kubectl("-n", "shop", "logs", "deployment/web")


def test_pod_security_refuses_a_privileged_pod(cluster: Cluster) -> None:
    with pytest.raises(DevError, match="violates PodSecurity"):
        cluster.kubectl("-n", "shop", "run", "bad", f"--image={IMAGE}", "--privileged")


def test_a_pod_reaches_an_s3_server_of_this_machine(cluster: Cluster, tmp_path: Path) -> None:
    with S3Server.start(tmp_path, address=cluster.host_address) as server:
        port = int(server.endpoint.rpartition(":")[2])
        assert "AccessDenied" in http_get(cluster, cluster.host_address, port)


def test_up_again_starts_nothing_anew(cluster: Cluster) -> None:
    before = cluster.components()
    begin = time.monotonic()
    assert Cluster.up(NAME) == cluster
    assert time.monotonic() - begin < 10
    assert cluster.components() == before


def test_up_repairs_what_died(cluster: Cluster) -> None:
    before = cluster.components()
    for name in ("kubelet", "coredns"):
        pid = before[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(f"{name} is gone", partial(_assert_gone, pid))
    assert Cluster.up(NAME) == cluster
    after = cluster.components()
    assert None not in after.values()
    assert {name for name in after if after[name] != before[name]} == {"kubelet", "coredns"}


def test_a_second_cluster_stands_beside_the_first_and_goes_without_a_trace(
    cluster: Cluster, image: Path
) -> None:
    other = Cluster.up("tests-dev-2")
    directory = cluster_directory("tests-dev-2")
    try:
        assert other.offset != cluster.offset
        other.import_image(image)
        other.kubectl("apply", "-f", "-", input=WORKLOAD)
        other.kubectl("-n", "shop", "rollout", "status", "deployment/web", "--timeout=60s")
        assert "hello" in eventually("its Service answers", lambda: http_get(other, "web"))
    finally:
        other.down()
    assert _processes_with(str(directory)) == []
    assert "mooring-tests-dev-2" not in Path("/proc/self/mountinfo").read_text()
    assert not directory.exists()
    assert not list(Path("/sys/fs/cgroup").glob("**/mooring-tests-dev-2"))
    assert other.addresses.interface not in _shown("ip", "-json", "link")
    assert f"MOORING-{other.offset}-" not in _shown("iptables-save")
    assert cluster.ready()


def _assert_gone(pid: int) -> None:
    assert processes.start_time(pid) is None


def _processes_with(text: str) -> list[str]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    commands = [" ".join(processes.arguments_of(pid)) for pid in pids]
    return [command for command in commands if text in command]


def _shown(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if command[1:2] == ("-json",):
        return json.dumps([link["ifname"] for link in json.loads(done.stdout)])
    return done.stdout


METRICS = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  labels: {{app.kubernetes.io/managed-by: mooring, mooring.dev/deployment: fraud}}
  annotations: {{{annotations}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: server
      image: mooring.dev/test-shell:dev
      command: [/bin/sh, -c, "cd /tmp; echo 'answers_total 5' > metrics; exec httpd -f -p 8080"]
      ports: [{{name: metrics, containerPort: 8080}}, {{name: http, containerPort: 8081}}]
"""


@pytest.mark.slow
@NODE_PORT_HOSTS
def test_prometheus_finds_pods_by_annotation_and_pods_of_mooring_by_label(cluster: Cluster) -> None:
    url = prometheus.install(cluster)
    asking = 'prometheus.io/scrape: "true", prometheus.io/port: "8080"'
    for name, words in (("annotated", asking), ("labelled", "")):
        manifest = METRICS.format(name=name, annotations=words)
        cluster.kubectl("apply", "-f", "-", input=manifest)

    def scraped() -> None:
        query = f"{url}/api/v1/query?query=answers_total"
        with urllib.request.urlopen(query, timeout=5) as answer:
            found = [series["metric"] for series in json.load(answer)["data"]["result"]]
        jobs = {series["pod"]: series["job"] for series in found}
        assert jobs == {"annotated": "annotated-pods", "labelled": "mooring-pods"}
        assert {series["mooring_deployment"] for series in found} == {"fraud"}

    eventually("both pods are scraped", scraped, seconds=60)
