"""The frame of a training program: what it is told, and what it leaves behind.

Reads the request, calls ``train`` (yours), and writes the result as the container's last words.
"""

import hashlib
import json
import os
import sys
from pathlib import Path


def train(window: dict, target: str) -> tuple[bytes, dict[str, float]]:
    """Yours: read the rows between window["start"] and window["end"], leave out the spans in
    window["exclude"], fit, export to ONNX, and put the bytes at ``target``.
    """
    raise SystemExit(f"train() is still to be written: {window} -> {target}")


def main() -> None:
    request = json.loads(Path(os.environ["MOORING_REQUEST_FILE"]).read_text())
    # The same request may run twice, after a node was lost: the same name then means the same model.
    target = f"{request['allowedPrefixes'][0]}{request['request']}/model.onnx"
    model, metrics = train(request["dataWindow"], target)
    result = {
        "uri": target,
        "digest": "sha256:" + hashlib.sha256(model).hexdigest(),
        "metrics": metrics,
    }
    Path("/dev/termination-log").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
