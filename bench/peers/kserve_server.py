"""KServe's Python server with a model class on onnxruntime, by its own tensors."""

from __future__ import annotations

import os

import onnxruntime as ort  # type: ignore[import-untyped]
from kserve import (  # type: ignore[import-not-found]
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelServer,
)

_TYPES = {"float32": "FP32", "int64": "INT64"}


class OnnxModel(Model):  # type: ignore[misc]
    """Loads the bench's model and predicts."""

    def load(self) -> bool:
        """KServe's hook."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        self.ready = True
        return self.ready

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        """KServe's hook."""
        tensor = payload.inputs[0]
        values = self._session.run(None, {tensor.name: tensor.as_numpy()})
        outputs = []
        for name, value in zip(self._names, values, strict=True):
            output = InferOutput(name, list(value.shape), _TYPES[value.dtype.name])
            output.set_data_from_numpy(value, binary_data=False)
            outputs.append(output)
        return InferResponse(payload.id or "0", self.name, outputs)


if __name__ == "__main__":
    model = OnnxModel("m")
    model.load()
    port = int(os.environ["BENCH_PORT"])
    ModelServer(http_port=port, enable_grpc=False, access_log_format=None).start([model])
