"""MLServer's model class on onnxruntime, by its own codecs."""

from __future__ import annotations

import os

import onnxruntime as ort  # type: ignore[import-untyped]
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class OnnxModel(MLModel):  # type: ignore[misc]
    """Loads the bench's model and predicts."""

    async def load(self) -> bool:
        """MLServer's hook."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """MLServer's hook."""
        tensor = payload.inputs[0]
        values = self._session.run(None, {tensor.name: NumpyCodec.decode_input(tensor)})
        outputs = [
            NumpyCodec.encode_output(name, value)
            for name, value in zip(self._names, values, strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version="1", outputs=outputs)
