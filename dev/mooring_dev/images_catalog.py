"""Which images there are, and a key that changes exactly when an image would.

The key is a hash of everything that reaches the image: its Dockerfile, the files that its COPY
lines take, and what it is built upon. Two checkouts with the same content share one build.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mooring_dev.errors import DevError

REPOSITORY = Path(__file__).resolve().parents[2]
TAG = "dev"
_IGNORED_FOLDERS = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass(frozen=True)
class Image:
    """A component's image and the folder that is its build context."""

    name: str
    context: str
    """Folder with the Dockerfile, relative to the repository."""
    on_demand: bool = False
    """Built only when it is asked for by name: it is large, and few things need it."""

    @property
    def reference(self) -> str:
        """The name of whatever was built last."""
        return f"mooring.dev/{self.name}:{TAG}"

    def tagged(self, key: str) -> str:
        """The name of the build ``key``, which never means anything else."""
        return f"{self.reference}-{key}"

    @property
    def folder(self) -> Path:
        return REPOSITORY / self.context

    @property
    def dockerfile(self) -> Path:
        return self.folder / "Dockerfile"


CATALOG: dict[str, Image] = {
    image.name: image
    for image in (
        Image("operator", "operator"),
        Image("fetcher", "components/fetcher"),
        Image("onnx-server", "components/onnx-server"),
        Image("router", "components/router"),
        Image("collector", "components/collector"),
        Image("torchserve", "components/torchserve", on_demand=True),
        Image("tfserving-standin", "dev/tfserving-standin", on_demand=True),
        Image("sklearn-server", "examples/custom-runtime", on_demand=True),
        Image("screening-train", "examples/retrain-with-job", on_demand=True),
    )
}
USUAL: tuple[str, ...] = tuple(name for name, image in CATALOG.items() if not image.on_demand)
"""The images that are built and loaded unless others are named."""


def find(name: str) -> Image:
    """The image called ``name``.

    Raises:
        DevError: there is none, or its Dockerfile is missing.
    """
    image = CATALOG.get(name)
    if image is None:
        raise DevError(f"There is no image {name!r}. There are: {', '.join(CATALOG)}.")
    if not image.dockerfile.is_file():
        raise DevError(f"{image.context}/Dockerfile is missing.")
    return image


def image_key(image: Image, base: str) -> str:
    """Twelve hex digits that name the content of ``image`` built upon ``base``."""
    digest = hashlib.sha256(f"{image.reference}\n{base}\n".encode())
    digest.update(image.dockerfile.read_bytes())
    for path in sorted(_inputs(image)):
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\n{path.relative_to(image.folder)} {executable}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _inputs(image: Image) -> Iterator[Path]:
    for source in _copied(image.dockerfile.read_text()):
        found = False
        for path in image.folder.glob(source.strip("/")):
            found = True
            yield from _files(path)
        if not found:
            raise DevError(
                f"{image.context}/Dockerfile copies {source!r}, which is not in that folder."
            )


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for child in path.iterdir():
        if child.name not in _IGNORED_FOLDERS and child.suffix != ".pyc":
            yield from _files(child)


def _copied(dockerfile: str) -> Iterator[str]:
    """Sources of the COPY and ADD lines that read the build context."""
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0].upper() not in {"COPY", "ADD"}:
            continue
        flags = [word for word in words[1:] if word.startswith("--")]
        if any(flag.startswith("--from=") for flag in flags):
            continue
        yield from [word for word in words[1:] if not word.startswith("--")][:-1]
