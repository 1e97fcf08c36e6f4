"""Build pinned Go programs from source into a cache, once.

Each group has a folder under ``dev/tools`` with a go.mod and go.sum, which pin every byte that is
compiled. The cache folder is named by a hash of those files (and of Go sources beside them), so
changing a version builds anew and going back finds the old binaries.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from mooring_dev.errors import DevError
from mooring_dev.golang import find_go, required_go
from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root, tools_root
from mooring_dev.steps import run_logged

KUBERNETES_VERSION = "v1.34.4"
PROMETHEUS_VERSION = "3.15.0"


@dataclass(frozen=True)
class Tool:
    """A program and the Go package it is built from."""

    binary: str
    package: str


@dataclass(frozen=True)
class Group:
    """Programs that share one go.mod, and are built together because they share most packages."""

    name: str
    tools: tuple[Tool, ...]
    variables: tuple[tuple[str, str], ...] = ()
    """Package variables set by the linker: what a release build would put there."""
    tags: tuple[str, ...] = ()
    """Build tags."""


def _kubernetes() -> Group:
    names = ("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler")
    tools = [Tool(name, f"k8s.io/kubernetes/cmd/{name}") for name in (*names, "kubelet")]
    tools.append(Tool("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"))
    tools.append(Tool("etcd", "go.etcd.io/etcd/server/v3"))
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = (("gitVersion", KUBERNETES_VERSION), ("gitMajor", major), ("gitMinor", minor))
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    variables = tuple((f"{package}.{key}", value) for package in packages for key, value in values)
    return Group("kubernetes", tuple(tools), variables)


def _prometheus() -> Group:
    tool = Tool("prometheus", "github.com/prometheus/prometheus/cmd/prometheus")
    version = (("github.com/prometheus/common/version.Version", PROMETHEUS_VERSION),)
    # Of two dozen kinds of discovery, with the client libraries of their clouds, one is needed.
    return Group("prometheus", (tool,), version, ("remove_all_sd", "enable_kubernetes_sd"))


GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        _kubernetes(),
        Group("pause", (Tool("pause", "mooring.dev/dev/tools/pause"),)),
        Group("coredns", (Tool("coredns", "mooring.dev/dev/tools/coredns"),)),
        Group("helm", (Tool("helm", "helm.sh/helm/v3/cmd/helm"),)),
        Group("kind", (Tool("kind", "sigs.k8s.io/kind"),)),
        _prometheus(),
        Group("gcs", (Tool("fake-gcs-server", "github.com/fsouza/fake-gcs-server"),)),
        Group(
            "registry",
            (Tool("registry", "github.com/distribution/distribution/v3/cmd/registry"),),
        ),
        Group("s3", (Tool("versitygw", "github.com/versity/versitygw/cmd/versitygw"),)),
    )
}


def group_of(binary: str) -> Group:
    """The group that builds ``binary``.

    Raises:
        DevError: no group does; the message lists what there is.
    """
    for group in GROUPS.values():
        if any(tool.binary == binary for tool in group.tools):
            return group
    known = ", ".join(tool.binary for group in GROUPS.values() for tool in group.tools)
    raise DevError(f"No binary {binary!r} is built here. There are: {known}.")


def source_directory(group: Group) -> Path:
    """Folder of the group's Go module."""
    return tools_root() / group.name


def source_key(group: Group) -> str:
    """Hash of everything in the repository that decides what the group's binaries are."""
    digest = hashlib.sha256()
    directory = source_directory(group)
    for path in sorted([*directory.glob("go.*"), *directory.glob("*.go")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr(group.variables).encode())
    if group.tags:
        digest.update(repr(group.tags).encode())
    return digest.hexdigest()[:16]


def binary_directory(group: Group) -> Path:
    """Where the group's binaries are, or will be once built."""
    return cache_root() / "bin" / source_key(group)


def missing(group: Group) -> list[Tool]:
    """The group's programs that are not in the cache."""
    directory = binary_directory(group)
    return [tool for tool in group.tools if not (directory / tool.binary).exists()]


def ensure_group(name: str) -> Path:
    """Build what is missing of the group called ``name`` and return the folder of its binaries.

    Safe to run several times at once and to interrupt: builders take turns, and a binary appears
    under its name only when it is whole.

    Raises:
        DevError: there is no such group, no Go, or the build failed.
    """
    group = GROUPS.get(name)
    if group is None:
        raise DevError(f"No group {name!r}. There are: {', '.join(GROUPS)}.")
    directory = binary_directory(group)
    if not missing(group):
        return directory
    lock = directory.with_name(directory.name + ".lock")
    with exclusive(lock, f"building {name}"):
        absent = missing(group)
        if absent:
            _build(group, absent, directory)
    return directory


def ensure(binary: str) -> Path:
    """Path of ``binary``, built first when it is not in the cache (see ``ensure_group``)."""
    return ensure_group(group_of(binary).name) / binary


def _build(group: Group, tools: list[Tool], directory: Path) -> None:
    source = source_directory(group)
    go = find_go(required_go(source))
    staging = directory.with_name(directory.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    directory.mkdir(parents=True, exist_ok=True)
    log = cache_root() / "logs" / f"build-{group.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {group.name} {directory.name}\n")
    # One call for all whose package is called like the binary: Go then links them in parallel.
    together = [tool for tool in tools if tool.package.rsplit("/", 1)[-1] == tool.binary]
    alone = [tool for tool in tools if tool not in together]
    for batch in ([together] if together else []) + [[tool] for tool in alone]:
        output = f"{staging}/" if batch is together else f"{staging / batch[0].binary}"
        flags = " ".join(["-s", "-w", *(f"-X {key}={value}" for key, value in group.variables)])
        command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        command += [
            "-tags",
            ",".join(group.tags),
            "-ldflags",
            flags,
            "-o",
            output,
            *(tool.package for tool in batch),
        ]
        title = f"Building {', '.join(tool.binary for tool in batch)}"
        run_logged(title, command, log, cwd=source, env=_build_environment())
        for tool in batch:
            (staging / tool.binary).rename(directory / tool.binary)
    shutil.rmtree(staging, ignore_errors=True)


def _build_environment() -> dict[str, str]:
    # GOTOOLCHAIN=local: the toolchain is chosen by find_go, never fetched behind its back.
    fixed = {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    return {**os.environ, **fixed}
