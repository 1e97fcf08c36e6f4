"""Open Inference Protocol v2 server on onnxruntime: one model, one process."""

from __future__ import annotations

__version__ = "0.1.0"
