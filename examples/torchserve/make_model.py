"""Make the example's model archive, fraud.mar: TorchScript and its handler, packed for TorchServe.

    python make_model.py v1 fraud.mar     needs torch and torch-model-archiver

Any PyTorch will do. The archive beside this script was made in the image of components/torchserve.
The model is that of examples/onnx: a logistic regression whose answers can be computed by hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEAN = (60.0, 0.1, 25.0, 0.1)
SCALE = (85.0, 0.3, 120.0, 0.3)
WEIGHTS = {"v1": (0.7, 0.4, 0.6, 0.3), "v2": (0.5, 0.9, 0.1, 0.4)}
BIAS = {"v1": -3.2, "v2": -3.6}


def write_script(version: str, path: Path) -> None:
    """Write the model as TorchScript, which needs no source of ours to be loaded."""
    import torch

    class Fraud(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(MEAN))
            self.register_buffer("scale", torch.tensor(SCALE))
            self.register_buffer("weights", torch.tensor(WEIGHTS[version]))
            self.register_buffer("bias", torch.tensor(BIAS[version]))

        def forward(self, payments: torch.Tensor) -> torch.Tensor:
            standardised = (payments - self.mean) / self.scale
            return torch.sigmoid(standardised @ self.weights + self.bias)

    torch.jit.script(Fraud()).save(str(path))


def pack(version: str, target: Path) -> None:
    """Write the archive to ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "fraud.pt"
        write_script(version, script)
        subprocess.run(
            [
                "torch-model-archiver",
                *("--model-name", "fraud", "--version", version.removeprefix("v") + ".0"),
                *("--serialized-file", str(script), "--handler", str(HERE / "fraud_handler.py")),
                *("--export-path", folder),
            ],
            check=True,
        )
        shutil.copy(Path(folder) / "fraud.mar", target)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in WEIGHTS:
        sys.exit(__doc__)
    pack(sys.argv[1], Path(sys.argv[2]))
