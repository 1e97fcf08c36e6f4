"""Where TensorFlow Serving and TorchServe look for a model, and what is no model of theirs.

A pure mapping of paths: what stands in a store goes to the place that the server's configuration
names. A model of another format is refused here, with a sentence, rather than by a server that
waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.saved_model import FILE

_SAVED_MODEL = frozenset({FILE, "saved_model.pbtxt"})
_SHOWN = 5


def saved_model_layout(paths: Sequence[str], version: str, where: str) -> dict[str, str]:
    """A SavedModel goes into ``<version>/``, whatever its folder was called, or if it had none.

    Raises PermanentFailure when there is none, or more than one.
    """
    if _SAVED_MODEL.intersection(paths):
        return {path: f"{version}/{path}" for path in paths}
    folders = sorted({p.split("/")[0] for p in paths if p.partition("/")[2] in _SAVED_MODEL})
    if not folders:
        raise PermanentFailure(
            f"{where} holds no SavedModel (no {FILE}), but {_some(paths)}: name the folder of the "
            "SavedModel, or the runtime that serves this format."
        )
    if len(folders) > 1:
        raise PermanentFailure(
            f"{where} holds the SavedModels {_some(folders)}, and one revision serves one: name "
            "its folder in the URI."
        )
    (folder,) = folders
    if folder != version and any(path.split("/")[0] == version for path in paths):
        raise PermanentFailure(
            f"{where} holds the SavedModel {folder!a}, and {version!a} beside it: name the "
            "SavedModel's folder in the URI."
        )
    inside = f"{folder}/"
    return {p: f"{version}/{p.removeprefix(inside)}" if p.startswith(inside) else p for p in paths}


def archive_layout(paths: Sequence[str], name: str, where: str) -> dict[str, str]:
    """The one model archive becomes ``<name>.mar``, since TorchServe names models by it.

    Raises PermanentFailure when there is none, or several of which none has that name.
    """
    wanted = f"{name}.mar"
    archives = [path for path in paths if "/" not in path and path.endswith(".mar")]
    if not archives:
        raise PermanentFailure(
            f"{where} holds no model archive (.mar), but {_some(paths)}: pack it by "
            "torch-model-archiver, or name the runtime that serves this format."
        )
    if wanted in archives:
        return {path: path for path in paths}
    if len(archives) > 1:
        raise PermanentFailure(
            f"{where} holds the model archives {_some(archives)}: name one of them in the URI."
        )
    return {path: wanted if path == archives[0] else path for path in paths}


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(f"{path[:80]!a}" for path in sorted(paths)[:_SHOWN])
    return shown + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
