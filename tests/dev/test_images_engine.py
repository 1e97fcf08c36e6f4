from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mooring_dev.errors import DevError
from mooring_dev.images_engine import Buildah, Docker, choose_engine

# Writes down how it was called; `save` makes its file, `info` answers when it is told to.
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
case "$1" in
  info) exit {info} ;;
  save) echo archive > "$3" ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fakes of docker (no engine answers) and buildah; the file that they write their calls to."""
    written = tmp_path / "calls"
    _fake(tmp_path, written, info=1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.delenv("MOORING_IMAGE_ENGINE", raising=False)
    return written


def _fake(tmp_path: Path, calls: Path, *, info: int) -> None:
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name in ("docker", "buildah"):
        (folder / name).write_text(FAKE.format(calls=calls, info=info))
        (folder / name).chmod(0o755)


@pytest.mark.usefixtures("calls")
def test_buildah_is_chosen_where_no_docker_engine_answers(tmp_path: Path) -> None:
    assert choose_engine(tmp_path) == Buildah(tmp_path)


def test_docker_is_chosen_where_its_engine_answers_unless_told_otherwise(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake(tmp_path, calls, info=0)
    assert choose_engine(tmp_path) == Docker()

    monkeypatch.setenv("MOORING_IMAGE_ENGINE", "buildah")
    assert choose_engine(tmp_path) == Buildah(tmp_path)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("engine", "words"), [("podman", "docker or buildah"), ("docker", "reaches no engine")]
)
def test_an_engine_that_cannot_be_had_is_refused(
    engine: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORING_IMAGE_ENGINE", engine)

    with pytest.raises(DevError, match=words):
        choose_engine(tmp_path)


def test_docker_builds_with_its_default_base_and_saves_under_every_name(
    calls: Path, tmp_path: Path
) -> None:
    log, archive = tmp_path / "log", tmp_path / "image.tar"

    Docker().build("Building", tmp_path / "context", "one:dev", log)
    Docker().save("Writing", ("one:dev", "one:dev-1"), archive, log)

    assert calls.read_text().splitlines() == [
        f"docker build --tag one:dev {tmp_path}/context",
        "docker tag one:dev one:dev-1",
        f"docker save --output {tmp_path}/image.partial one:dev one:dev-1",
    ]
    assert archive.exists()
    assert not archive.with_suffix(".partial").exists()


def test_buildah_builds_upon_the_base_given_without_pulling_or_privileges(
    calls: Path, tmp_path: Path
) -> None:
    engine = Buildah(tmp_path / "store")

    engine.build("Building", tmp_path, "one:dev", tmp_path / "log", ("BASE_IMAGE=base:dev",))

    words = shlex.split(calls.read_text())
    assert words[0] == "buildah"
    assert words[words.index("--root") + 1] == f"{tmp_path}/store/root"
    assert words[words.index("--runroot") + 1] == f"{tmp_path}/store/run"
    assert words[words.index("--build-arg") + 1] == "BASE_IMAGE=base:dev"
    assert words[words.index("--isolation") + 1] == "chroot"
    assert "--pull=never" in words
    assert "--layers" in words
