"""A containerd of our own: its configuration, images, and the containers that outlive it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mooring_dev import files, oci, processes
from mooring_dev.binaries import ensure
from mooring_dev.health import wait_until
from mooring_dev.packages import HostTools
from mooring_dev.processes import Program
from mooring_dev.steps import failed, run_logged, tail

PAUSE_IMAGE = "mooring.dev/pause:dev"
_SHIM = "containerd-shim-runc-v2"

_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.nri.v1.nri",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering a score needs CAP_SYS_RESOURCE, which a machine that is itself confined lacks.
  restrict_oom_score_adj = true
  # Under our own folder, so that `down` finds and unmounts the namespaces of Pods.
  netns_mounts_under_state_dir = true
  disable_tcp_service = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        Root = "{runc_state}"
        SystemdCgroup = false
"""

_CNI = """\
{{
  "cniVersion": "0.4.0",
  "name": "mooring",
  "plugins": [
    {{
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1400,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{leases}",
        "ranges": [[{{"subnet": "{pods}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}, "snat": true}}
  ]
}}
"""


@dataclass(frozen=True)
class Containerd:
    """The container runtime of one cluster.

    Attributes:
        directory: the cluster's state; images live here.
        runtime: the cluster's folder for sockets and what ends with a reboot.
        namespace: network namespace that Pods are wired to.
        pods: CIDR of Pods.
    """

    tools: HostTools
    directory: Path
    runtime: Path
    namespace: Path
    pods: str

    @property
    def socket(self) -> Path:
        """Unix socket of containerd."""
        return self.runtime / "containerd.sock"

    def program(self) -> Program:
        """Write the configuration and return what to start."""
        config = self.directory / "containerd.toml"
        cni = self.directory / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        self.runtime.mkdir(parents=True, exist_ok=True)
        files.write_text(
            config,
            _CONFIG.format(
                root=self.directory / "containerd",
                state=self.runtime / "containerd",
                socket=self.socket,
                pause=PAUSE_IMAGE,
                cni_bin=self.tools.cni,
                cni_conf=cni,
                runc=self.tools.runc,
                runc_state=self.runtime / "runc",
            ),
        )
        leases = self.runtime / "leases"
        network = _CNI.format(leases=leases, pods=self.pods)
        files.write_text(cni / "10-mooring.conflist", network)
        return Program(
            "containerd",
            (self.tools.containerd, "--config", str(config)),
            self.directory,
            namespace=self.namespace,
            inputs=(config,),
        )

    def wait(self, program: Program) -> None:
        """Wait until containerd answers."""
        wait_until(
            f"containerd answers (log: {program.log})",
            lambda: self._ctr("version").returncode == 0,
            timeout=30.0,
            check=lambda: processes.require_alive(program),
        )

    def ensure_pause_image(self) -> None:
        """Import the pause image unless it is there."""
        listed = self._ctr("images", "list", "-q", f"name=={PAUSE_IMAGE}")
        if PAUSE_IMAGE in listed.stdout.split():
            return
        binary = ensure("pause")
        archive = self.directory / "pause.tar"
        files = {"/pause": oci.File(binary.read_bytes(), 0o755)}
        oci.write_image(archive, PAUSE_IMAGE, files, entrypoint=("/pause",))
        self.import_image(archive)
        archive.unlink()

    def import_image(self, archive: Path) -> None:
        """Make the images in ``archive`` (an OCI or Docker tar) usable by Pods.

        Raises:
            DevError: ctr failed; the message names its log.
        """
        run_logged(
            f"Importing {archive.name}",
            [*self._command(), "images", "import", str(archive)],
            self.directory / "logs" / "import.log",
        )

    def images(self) -> list[str]:
        """Names of the images that Pods can use."""
        done = self._ctr("images", "list", "-q")
        if done.returncode != 0:
            raise failed("Listing images", self.directory / "logs" / "containerd.log")
        names = done.stdout.split()
        return sorted(name for name in names if not name.startswith("sha256:"))

    def shims(self) -> list[int]:
        """Processes that hold containers of this containerd, which do not end with it."""
        found = []
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            arguments = processes.arguments_of(int(entry.name))
            if arguments and arguments[0].endswith(_SHIM) and str(self.socket) in arguments:
                found.append(int(entry.name))
        return found

    def remove_traces(self) -> None:
        """Remove what ended containers leave in folders that all containerds share."""
        for bundle in (self.runtime / "containerd").glob("io.containerd.runtime.v2.task/k8s.io/*"):
            socket = Path(tail(bundle / "address", 1).removeprefix("unix://").strip())
            if socket.parent == Path("/run/containerd/s"):
                socket.unlink(missing_ok=True)
            for result in Path("/var/lib/cni/results").glob(f"*-{bundle.name}-*"):
                result.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        return [self.tools.ctr, "--address", str(self.socket), "--namespace", "k8s.io"]

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self._command(), "--connect-timeout", "1s", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)
