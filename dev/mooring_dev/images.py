"""Build the images that a cluster runs, and hand them to it.

Archives are kept in the cache under a key of their content (see ``images_catalog``), so a build
with nothing changed only reads the sources. A killed build leaves at most a ``.partial`` file.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Table

from mooring_dev import images_base
from mooring_dev.cluster import Cluster
from mooring_dev.images_catalog import CATALOG, USUAL, Image, find, image_key
from mooring_dev.images_engine import Engine, choose_engine
from mooring_dev.locks import exclusive
from mooring_dev.paths import cache_root, cluster_directory
from mooring_dev.steps import console

_KEPT_PER_IMAGE = 2


@dataclass(frozen=True)
class Built:
    """An archive of an image, ready to be imported."""

    image: Image
    key: str
    archive: Path
    seconds: float
    """How long building took; 0.0 when it was there already."""

    @property
    def reference(self) -> str:
        """The name that changes with the content, so that a change reaches every new pod."""
        return self.image.tagged(self.key)


def images_root() -> Path:
    """Folder of the archives, the build store and the logs."""
    return cache_root() / "images"


def build(names: Sequence[str] = USUAL, *, fresh: bool = False) -> tuple[Built, ...]:
    """Build what is missing of ``names`` and return all of them in order.

    ``fresh`` makes the base image anew, with today's Debian packages, and all that stands upon it.

    Raises:
        DevError: a name is unknown or a step failed; the message names the step's log.
    """
    images = tuple(find(name) for name in names)
    root = images_root()
    logs = root / "logs"
    with exclusive(root / "lock", "an image build"):
        engine = choose_engine(root / "store")
        if fresh:
            shutil.rmtree(root / "archives", ignore_errors=True)
            for rootfs in root.glob("rootfs-*"):
                rootfs.unlink()
        base = _base_name(engine)
        keys = {image.name: image_key(image, base) for image in images}
        missing = [image for image in images if not _archive(image, keys[image.name]).exists()]
        seconds: dict[str, float] = {}
        if missing:
            engine.prepare(logs)
            arguments = _base_arguments(engine, base, logs)
            for image in missing:
                begin = time.monotonic()
                _build_one(engine, image, keys[image.name], arguments, logs)
                seconds[image.name] = time.monotonic() - begin
    return tuple(
        Built(
            image=image,
            key=keys[image.name],
            archive=_archive(image, keys[image.name]),
            seconds=seconds.get(image.name, 0.0),
        )
        for image in images
    )


def all_built(names: Sequence[str]) -> bool:
    """Whether the archives of ``names`` are there, as the sources are now."""
    engine = choose_engine(images_root() / "store")
    base = _base_name(engine)
    images = (find(name) for name in names)
    return all(_archive(image, image_key(image, base)).exists() for image in images)


def _base_name(engine: Engine) -> str:
    """What the images are built upon: a key of the base made here, or another image's name."""
    return images_base.base_key() if engine.needs_base else os.environ.get("MOORING_BASE", "")


def _archive(image: Image, key: str) -> Path:
    return images_root() / "archives" / f"{image.name}-{key}.tar"


def _base_arguments(engine: Engine, base: str, logs: Path) -> tuple[str, ...]:
    """Build arguments that name the base image, which is made first where it has to be."""
    if not engine.needs_base:
        return (f"BASE_IMAGE={base}",) if base else ()
    root = images_root()
    stamp = root / f"base-{base}.built"
    rootfs = root / f"rootfs-{base}.tar"
    if not rootfs.exists() or not stamp.exists():
        log = logs / "base.log"
        log.unlink(missing_ok=True)
        if not rootfs.exists():
            images_base.make_rootfs(rootfs, log)
        engine.forget(log)
        context = root / "base-context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        shutil.copy(images_base.FOLDER / "Dockerfile", context)
        (context / "rootfs.tar").hardlink_to(rootfs)
        engine.build("Building the base image", context, images_base.REFERENCE, log)
        shutil.rmtree(context)
        for old in (*root.glob("base-*.built"), *root.glob("rootfs-*")):
            if old not in {stamp, rootfs}:
                old.unlink()
        stamp.touch()
    return (f"BASE_IMAGE={images_base.REFERENCE}",)


def _build_one(
    engine: Engine, image: Image, key: str, arguments: tuple[str, ...], logs: Path
) -> None:
    log = logs / f"{image.name}.log"
    log.unlink(missing_ok=True)
    title = f"Building the image {image.name}"
    engine.build(title, image.folder, image.reference, log, arguments)
    archive = _archive(image, key)
    archive.parent.mkdir(parents=True, exist_ok=True)
    tags = (image.reference, image.tagged(key))
    engine.save(f"Writing the image {image.name}", tags, archive, log)
    # The name's length is fixed after the image's own, so "onnx-*" never takes another's archive.
    others = sorted(
        archive.parent.glob(f"{image.name}-{'?' * len(key)}.tar"),
        key=lambda path: path.stat().st_mtime,
    )
    for old in others[:-_KEPT_PER_IMAGE]:
        old.unlink()


def load(cluster: Cluster, names: Sequence[str] = USUAL) -> tuple[Built, ...]:
    """Build what is missing of ``names`` and hand to ``cluster`` what it does not have.

    Raises:
        DevError: a build failed, or the cluster takes no images.
    """
    built = build(names)
    # What `:dev` means in the cluster is not to be had from it by every provider; the tags by
    # content are, and this file says which of them came last.
    record = cluster_directory(cluster.name) / "images.json"
    latest = _read_record(record)
    present = set(cluster.images()) if cluster.provider == "local" else set()
    for one in built:
        if one.reference in present and latest.get(one.image.name) == one.key:
            continue
        cluster.import_image(one.archive)
        _write_record(record, one)
    return built


def _write_record(record: Path, one: Built) -> None:
    # Another process may be loading other images: what it wrote since is kept.
    with exclusive(record.with_suffix(".lock"), "what is loaded"):
        latest = _read_record(record) | {one.image.name: one.key}
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps(latest))
        partial.rename(record)


def _read_record(record: Path) -> dict[str, str]:
    try:
        read = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(key) for name, key in read.items()}


@click.group()
def images() -> None:
    """Build the images from their Dockerfiles, and load them into a cluster.

    With a Docker engine they are built upon python:3.12-slim-bookworm; without one (as root on
    Debian 12) by buildah upon a base made here. MOORING_IMAGE_ENGINE=docker|buildah chooses,
    MOORING_BASE names another base image for Docker.
    """


_only = click.option(
    "--only",
    "names",
    multiple=True,
    type=click.Choice(tuple(CATALOG)),
    help="Only this image; may be given several times. Large ones are built only so.",
)


@images.command("build")
@_only
@click.option("--fresh", is_flag=True, help="With today's Debian packages, nothing from the cache.")
@click.option("-o", "--output", type=click.Choice(("table", "json")), default="table")
def build_command(names: tuple[str, ...], *, fresh: bool, output: str) -> None:
    """Build what has changed."""
    built = build(names or USUAL, fresh=fresh)
    if output == "json":
        click.echo(json.dumps([_as_data(one) for one in built], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("IMAGE", "KEY", "SIZE", "BUILT"):
        table.add_column(title, justify="right" if title == "SIZE" else "left")
    for one in built:
        spent = f"in {one.seconds:.0f} s" if one.seconds else "before"
        size = f"{one.archive.stat().st_size / 1e6:.0f} MB"
        table.add_row(one.image.reference, one.key, size, spent)
    console().print(table)


def _as_data(built: Built) -> dict[str, object]:
    return {
        "image": built.image.reference,
        "key": built.key,
        "archive": str(built.archive),
        "bytes": built.archive.stat().st_size,
        "seconds": round(built.seconds, 1),
    }


@images.command("load")
@_only
@click.option("--name", default="default", show_default=True, help="The cluster.")
def load_command(names: tuple[str, ...], *, name: str) -> None:
    """Build what has changed and hand it to a running cluster."""
    cluster = Cluster.find(name)
    table = Table("IMAGE", "NAMED BY CONTENT", box=None, pad_edge=False)
    for one in load(cluster, names or USUAL):
        table.add_row(one.image.reference, one.reference)
    console().print(table)
