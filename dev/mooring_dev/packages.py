"""What a node needs of the operating system, and how to get it on Debian."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root
from mooring_dev.steps import run_logged

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: For somebody else's apt-get to end (seconds).
_PATIENCE = 300
_OTHERWISE = "use `--provider kind` or `--provider existing`"
_CNI_FOLDERS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))

PROGRAMS: dict[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "umount": "mount",
}
"""Program to the Debian package that has it."""


@dataclass(frozen=True)
class HostTools:
    """Where the programs of the operating system are."""

    containerd: str
    ctr: str
    runc: str
    iptables: str
    ip: str
    cni: Path


def which(program: str) -> str | None:
    """Path of ``program`` on PATH or in the system folders, which a user's PATH may lack."""
    return shutil.which(program) or shutil.which(program, path=_SEARCH)


def cni_folder() -> Path | None:
    """Folder with the CNI plugins that a node needs."""
    for folder in _CNI_FOLDERS:
        if all((folder / plugin).exists() for plugin in ("ptp", "host-local", "portmap")):
            return folder
    return None


def missing_packages() -> list[str]:
    """Debian packages that would have to be installed."""
    absent = {package for program, package in PROGRAMS.items() if which(program) is None}
    if cni_folder() is None:
        absent.add("containernetworking-plugins")
    return sorted(absent)


def ensure_packages() -> HostTools:
    """Install what is missing by apt-get and return where everything is.

    Raises:
        DevError: something is missing and there is no apt-get, or it failed.
    """
    install(missing_packages)
    absent = missing_packages()
    if absent:
        raise DevError(f"These packages were installed but lack a program: {', '.join(absent)}.")
    folder = cni_folder()
    assert folder is not None
    found = {program: which(program) or program for program in PROGRAMS}
    return HostTools(
        containerd=found["containerd"],
        ctr=found["ctr"],
        runc=found["runc"],
        iptables=found["iptables"],
        ip=found["ip"],
        cni=folder,
    )


def ensure_program(program: str, package: str) -> str:
    """Path of ``program``, from Debian's ``package`` when it is not there.

    Raises:
        DevError: it is missing and cannot be installed.
    """
    install(lambda: [] if which(program) else [package])
    found = which(program)
    if found is None:
        raise DevError(f"Debian's {package} was installed but has no {program}.")
    return found


def install(missing: Callable[[], Sequence[str]], otherwise: str = _OTHERWISE) -> None:
    """Install the Debian packages that ``missing`` names; nothing where it names none.

    One process at a time does: a second apt-get fails at once, and would install the same.
    ``otherwise`` is what to do where it cannot be done.

    Raises:
        DevError: there is no apt-get, this user may not use it, or it failed.
    """
    if not missing():
        return
    with exclusive(cache_root() / "apt.lock", "installing packages"):
        packages = missing()  # what another process has installed meanwhile is there now
        if packages:
            _install(packages, otherwise)


def _install(packages: Sequence[str], otherwise: str) -> None:
    apt = shutil.which("apt-get")
    listed = ", ".join(packages)
    if apt is None or os.geteuid() != 0:
        raise DevError(
            f"This machine lacks what Debian calls {listed}, and only root can install that by "
            f"apt-get. Install it, or {otherwise}."
        )
    log = cache_root() / "logs" / "apt.log"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt_get = [apt, "-o", f"DPkg::Lock::Timeout={_PATIENCE}"]
    run_logged("Updating the package lists", [*apt_get, "update", "-qq"], log, env=environment)
    command = [*apt_get, "install", "-y", "-qq", "--no-install-recommends", *packages]
    run_logged(f"Installing {listed}", command, log, env=environment)
