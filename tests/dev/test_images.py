from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mooring_dev import images, images_background, images_catalog
from mooring_dev.errors import DevError
from mooring_dev.images_base import pip_conf
from mooring_dev.images_catalog import CATALOG, Image, image_key
from mooring_dev.images_engine import name_archive
from mooring_dev.paths import cluster_directory
from mooring_dev.processes import start_time

DOCKERFILE = """\
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}
COPY requirements.txt ./
RUN pip install \\
    -r requirements.txt
COPY --chown=0:0 app \\
    ./app
"""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image whose context has files that are copied, and files that are not."""
    context = tmp_path / "component"
    (context / "app" / "__pycache__").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "requirements.txt").write_text("click")
    (context / "app" / "main.py").write_text("print()")
    (context / "README.md").write_text("read me")
    return Image("component", str(context))


@pytest.mark.parametrize("path", ["requirements.txt", "app/main.py", "app/new.py", "Dockerfile"])
def test_a_key_changes_with_every_file_that_reaches_the_image(image: Image, path: str) -> None:
    before = image_key(image, "base")

    with (image.folder / path).open("a") as stream:
        stream.write("\n# more")

    assert image_key(image, "base") != before


@pytest.mark.parametrize("path", ["README.md", "app/__pycache__/main.cpython-311.pyc"])
def test_a_key_does_not_change_with_files_that_never_reach_the_image(
    image: Image, path: str
) -> None:
    before = image_key(image, "base")

    (image.folder / path).write_text("something else")

    assert image_key(image, "base") == before


def test_a_key_changes_with_the_base_and_with_an_executable_bit(image: Image) -> None:
    before = image_key(image, "base")
    (image.folder / "app" / "main.py").chmod(0o755)
    executable = image_key(image, "base")

    assert len({before, executable, image_key(image, "another base")}) == 3


def test_a_copied_file_that_is_missing_is_named(image: Image) -> None:
    (image.folder / "requirements.txt").unlink()

    with pytest.raises(DevError, match=r"Dockerfile copies 'requirements\.txt'"):
        image_key(image, "base")


@pytest.mark.parametrize("name", CATALOG)
def test_every_image_is_built_upon_a_base_of_choice_and_runs_as_a_plain_user(name: str) -> None:
    lines = CATALOG[name].dockerfile.read_text().splitlines()
    instructions = [line for line in lines if line and not line.startswith("#")]

    assert instructions[0] == "ARG BASE_IMAGE=python:3.12-slim-bookworm"
    assert instructions[1] == "FROM ${BASE_IMAGE}"
    assert "USER 65532:65532" in instructions
    for command in re.findall(r"pip install(?:[^&]|\\\n)*", "\n".join(instructions)):
        assert "--require-hashes" in command
        assert "--no-cache-dir" in command
        assert "://" not in command


def test_the_base_image_reaches_the_registry_that_this_machine_reaches() -> None:
    listed = (
        "global.index-url='https://example.com/simple'\n"
        "global.extra-index-url='https://a.example\\nhttps://b.example'\n"
        ":env:.find-links='/opt/wheels'\n"
        "global.cert='/home/me/ca.pem'\n"
    )

    assert pip_conf(listed) == (
        "[global]\n"
        "cert = /etc/ssl/certs/ca-certificates.crt\n"
        "disable-pip-version-check = true\n"
        "extra-index-url = https://a.example\n"
        "    https://b.example\n"
        "index-url = https://example.com/simple\n"
    )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def test_an_archive_gets_several_names_and_keeps_its_layers(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    manifest = [{"Config": "c.json", "RepoTags": ["one:dev"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", b"layer" * 1000)
        _add(archive, "c.json", b"{}")
        _add(archive, "manifest.json", json.dumps(manifest).encode())
        _add(archive, "repositories", b"{}")

    name_archive(path, ("one:dev", "one:dev-0123"))

    with tarfile.open(path) as archive:
        assert archive.getnames() == ["layer.tar", "c.json", "manifest.json"]
        layer, read = archive.extractfile("layer.tar"), archive.extractfile("manifest.json")
        assert layer is not None
        assert read is not None
        assert layer.read() == b"layer" * 1000
        assert json.load(read) == [{**manifest[0], "RepoTags": ["one:dev", "one:dev-0123"]}]


@dataclass
class FakeEngine:
    """Writes down what it is asked for; fails at the titles in ``broken``."""

    calls: list[str] = field(default_factory=list)
    broken: str | None = None
    needs_base: bool = False

    def prepare(self, logs: Path) -> None:
        self.calls.append("prepare")

    def forget(self, log: Path) -> None:
        self.calls.append("forget")

    def build(
        self, title: str, context: Path, tag: str, log: Path, arguments: Sequence[str] = ()
    ) -> None:
        self.calls.append(f"build {tag}")
        if self.broken and self.broken in title:
            raise DevError(f"{title} failed. Log: {log}")

    def save(self, title: str, tags: Sequence[str], archive: Path, log: Path) -> None:
        self.calls.append(f"save {' '.join(tags)}")
        archive.write_text("archive")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Image) -> FakeEngine:
    """A cache of its own, an engine that builds nothing, and a catalog of one image."""
    fake = FakeEngine()
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MOORING_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(images, "choose_engine", lambda _store: fake)
    monkeypatch.setattr(images_catalog, "CATALOG", {image.name: image})
    return fake


def test_what_is_built_is_not_built_again_until_its_content_changes(
    engine: FakeEngine, image: Image
) -> None:
    (first,) = images.build(["component"])
    engine.calls.clear()
    (again,) = images.build(["component"])
    assert engine.calls == []
    assert (again.key, again.seconds) == (first.key, 0.0)

    (image.folder / "app" / "main.py").write_text("print(1)")
    (changed,) = images.build(["component"])
    assert changed.key != first.key
    assert engine.calls == [
        "prepare",
        "build mooring.dev/component:dev",
        f"save mooring.dev/component:dev mooring.dev/component:dev-{changed.key}",
    ]


def test_a_failed_build_names_its_log_and_leaves_no_archive(engine: FakeEngine) -> None:
    engine.broken = "component"

    with pytest.raises(DevError, match=r"logs/component\.log"):
        images.build(["component"])

    assert not list(images.images_root().glob("archives/*"))
    engine.broken = None
    assert images.build(["component"])[0].archive.exists()


def test_only_the_last_two_builds_of_an_image_are_kept(engine: FakeEngine, image: Image) -> None:
    built: list[images.Built] = []
    for number in range(3):
        (image.folder / "app" / "main.py").write_text(f"print({number})")
        built += images.build(["component"])

    assert [one.archive.exists() for one in built] == [False, True, True]


def runs(build: images_background.Background) -> bool:
    return build.running


def test_a_background_build_ends_with_its_block_and_all_that_it_started(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/child\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fake))
    child = tmp_path / "child"

    with images_background.building(["component"]) as building:
        assert runs(building)
        while not (child.exists() and child.read_text().strip()):
            time.sleep(0.01)

    assert not runs(building)
    pid = int(child.read_text())
    until = time.monotonic() + 10
    while start_time(pid) is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert start_time(pid) is None


def test_a_background_build_starts_nothing_when_nothing_is_missing(engine: FakeEngine) -> None:
    images.build(["component"])

    with images_background.building(["component"]) as building:
        assert not building.running
        building.wait()


def test_a_failed_background_build_shows_the_end_of_its_log(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho the mirror is gone\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fake))

    with (
        images_background.building(["component"]) as building,
        pytest.raises(DevError, match="the mirror is gone"),
    ):
        building.wait()


def test_images_are_loaded_in_the_background_into_the_cluster_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    fake.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fake))
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path))

    with images_background.loading("demo", ["router", "fetcher"]) as loading:
        loading.wait()

    said = (tmp_path / "arguments").read_text().split()
    expected = "-m mooring_dev images load --name demo --only router --only fetcher"
    assert said == expected.split()


@dataclass(frozen=True)
class FakeCluster:
    """Remembers what was imported into it."""

    name: str = "fake"
    provider: str = "local"
    imported: list[Path] = field(default_factory=list)
    present: set[str] = field(default_factory=set)

    def import_image(self, tar: Path) -> None:
        self.imported.append(tar)
        key = tar.stem.removeprefix("component-")
        self.present.add(f"mooring.dev/component:dev-{key}")

    def images(self) -> list[str]:
        return sorted(self.present)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setenv("MOORING_STATE", str(tmp_path / "state"))
    cluster_directory("fake").mkdir(parents=True)
    return FakeCluster()


@pytest.mark.usefixtures("engine")
def test_two_that_load_at_once_both_remember_what_they_loaded(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = cluster_directory("fake") / "images.json"
    imported = FakeCluster.import_image

    def while_another_loads(self: FakeCluster, tar: Path) -> None:
        imported(self, tar)
        record.write_text(json.dumps({"router": "r1"}))

    monkeypatch.setattr(FakeCluster, "import_image", while_another_loads)
    (one,) = images.load(cluster, ["component"])  # type: ignore[arg-type]  # what load uses of it

    assert json.loads(record.read_text()) == {"router": "r1", "component": one.key}


@pytest.mark.usefixtures("engine")
def test_an_image_is_loaded_once_and_again_when_the_cluster_has_lost_it(
    cluster: FakeCluster,
) -> None:
    for _ in range(2):
        images.load(cluster, ["component"])  # type: ignore[arg-type]  # what load uses of it
    assert len(cluster.imported) == 1

    cluster.present.clear()
    images.load(cluster, ["component"])  # type: ignore[arg-type]  # what load uses of it
    assert len(cluster.imported) == 2


@pytest.mark.usefixtures("engine")
def test_going_back_to_an_older_build_loads_it_again_since_dev_means_the_last_one(
    cluster: FakeCluster, image: Image
) -> None:
    main = image.folder / "app" / "main.py"
    for content in ("print(1)", "print(2)", "print(1)"):
        main.write_text(content)
        images.load(cluster, ["component"])  # type: ignore[arg-type]  # what load uses of it

    assert len(cluster.imported) == 3
    assert cluster.imported[0] == cluster.imported[2]


def test_an_unknown_image_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DevError, match="There are: operator, fetcher, onnx-server"):
        images.build(["fetchr"])
