"""A SavedModel on TensorFlow, asked by rows, by columns and by tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfserving_standin.options import CannotStart


class Refused(Exception):
    """A request that is answered by an error: a gRPC status name and a message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """The signatures of one version; raises CannotStart when it does not load."""

    def __init__(self, name: str, base: Path, version: int) -> None:
        self.name, self.version = name, version
        where = f"{{name: {name} version: {version}}}"
        folders = [p for p in base.iterdir() if p.name.isdecimal() and int(p.name) == version]
        if not folders:
            raise CannotStart(
                f"NOT_FOUND: 1 servable(s) did not become available: {{{where} due to error: "
                f"NOT_FOUND: Could not find version {version} below {base}}}"
            )
        try:
            self._loaded = tf.saved_model.load(str(folders[0]), tags=["serve"])
        except Exception as error:  # noqa: BLE001 - whatever TensorFlow says are the last words
            reason = " ".join(str(error).split())[:600]
            raise CannotStart(
                f"UNKNOWN: 1 servable(s) did not become available: {{{where} due to error: "
                f"{type(error).__name__}: {reason}}}"
            ) from None
        self.signatures = dict(self._loaded.signatures)

    def signature(self, name: str) -> Any:
        """The function of a signature; serving_default when `name` is empty."""
        wanted = name or "serving_default"
        if wanted not in self.signatures:
            raise Refused("INVALID_ARGUMENT", f'Serving signature key "{wanted}" not found.')
        return self.signatures[wanted]

    def run(self, signature: str, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Outputs by name."""
        function = self.signature(signature)
        specs = function.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise Refused(
                "INVALID_ARGUMENT",
                f"input keys are {sorted(inputs)}, the signature takes {sorted(specs)}",
            )
        try:
            fed = {
                name: tf.constant(value, dtype=specs[name].dtype) for name, value in inputs.items()
            }
            return {name: value.numpy() for name, value in function(**fed).items()}
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            raise Refused("INVALID_ARGUMENT", " ".join(str(error).split())[:400]) from None

    def predict_json(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a REST request, by rows (instances) or by columns (inputs)."""
        name = str(body.get("signature_name", ""))
        specs = self.signature(name).structured_input_signature[1]
        if "instances" in body:
            rows = body["instances"]
            if not isinstance(rows, list) or not rows:
                raise Refused("INVALID_ARGUMENT", "instances must be a list with something in it")
            if isinstance(rows[0], dict):
                inputs = {key: np.array([row.get(key) for row in rows]) for key in rows[0]}
            else:
                inputs = dict.fromkeys(specs, np.array(rows)) if len(specs) == 1 else {}
            found = self.run(name, inputs)
            return {"predictions": _rows(found, len(rows))}
        if "inputs" in body:
            given = body["inputs"]
            if not isinstance(given, dict):
                given = {next(iter(specs)): given}
            found = self.run(name, {key: np.array(value) for key, value in given.items()})
            plain = {key: value.tolist() for key, value in found.items()}
            return {"outputs": plain if len(plain) > 1 else next(iter(plain.values()))}
        raise Refused("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")


def _rows(outputs: dict[str, Any], count: int) -> list[Any]:
    if any(value.ndim == 0 or len(value) != count for value in outputs.values()):
        raise Refused("INVALID_ARGUMENT", "an output does not have a row for each instance")
    if len(outputs) == 1:
        listed: list[Any] = next(iter(outputs.values())).tolist()
        return listed
    return [{key: value[row].tolist() for key, value in outputs.items()} for row in range(count)]
