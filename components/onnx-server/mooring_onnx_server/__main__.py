"""`python -m mooring_onnx_server` is the same program as `mooring-onnx-server`."""

from __future__ import annotations

from mooring_onnx_server.cli import main

if __name__ == "__main__":
    main(prog_name="mooring-onnx-server")
