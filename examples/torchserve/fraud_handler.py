"""TorchServe's handler of the example: JSON in, probabilities of fraud out."""

import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class FraudHandler(BaseHandler):
    """Answers ``{"instances": [[amount, night, distance_km, new_device], …]}`` with
    ``{"predictions": [probability, …]}``.

    TorchServe hands over a batch of requests, and wants an answer for each of them.
    """

    def preprocess(self, requests):
        """One tensor of all rows; how many belong to which request is kept for the answers."""
        rows = []
        self.counts = []
        for request in requests:
            body = request.get("body") or request.get("data")
            if isinstance(body, (bytes, bytearray)):
                body = json.loads(body)
            instances = body["instances"]
            rows.extend(instances)
            self.counts.append(len(instances))
        return torch.tensor(rows, dtype=torch.float32)

    def inference(self, rows):
        """The probability of fraud of each row."""
        with torch.no_grad():
            return self.model(rows)

    def postprocess(self, probabilities):
        """The answers, parted by request."""
        parts = torch.split(probabilities, self.counts)
        return [{"predictions": part.tolist()} for part in parts]
