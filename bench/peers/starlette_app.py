"""The least that a Python server can do: starlette, uvicorn, orjson, no check of anything."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import orjson
import uvicorn
from starlette.applications import Starlette  # type: ignore[import-not-found]
from starlette.requests import Request  # type: ignore[import-not-found]
from starlette.responses import Response  # type: ignore[import-not-found]
from starlette.routing import Route  # type: ignore[import-not-found]

_options = ort.SessionOptions()
_options.intra_op_num_threads = 1
_session = ort.InferenceSession(
    os.environ["BENCH_MODEL"], _options, providers=["CPUExecutionProvider"]
)
_names = [output.name for output in _session.get_outputs()]
_TYPES = {"float32": "FP32", "int64": "INT64"}


async def infer(request: Request) -> Response:
    """Predicts on the event loop."""
    tensor = orjson.loads(await request.body())["inputs"][0]
    x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    outputs = [
        {"name": n, "shape": v.shape, "datatype": _TYPES[v.dtype.name], "data": v.ravel()}
        for n, v in zip(_names, _session.run(None, {tensor["name"]: x}), strict=True)
    ]
    body = {"model_name": "m", "model_version": "1", "outputs": outputs}
    return Response(
        orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )


async def ready(_: Request) -> Response:
    """Says that the model is there."""
    return Response()


app = Starlette(
    routes=[
        Route("/v2/models/m/infer", infer, methods=["POST"]),
        Route("/v2/models/m/ready", ready),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=False,
        log_level="warning",
    )  # fmt: skip
