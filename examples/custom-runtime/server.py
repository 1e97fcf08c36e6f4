"""Serves one scikit-learn model by HTTP.

    python server.py --model /mnt/models/model.joblib --name taxi --port 8000

What Mooring asks of a server is no more than this: it answers a probe when the *model* is ready, it
ends with one sentence when the model cannot be loaded, and it stops when it is told to. The metrics
are for whoever wants to judge a rollout by them.
"""

import argparse
import sys
import time
from pathlib import Path

import joblib
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from pydantic import BaseModel

DURATION = Histogram(
    "sklearn_request_duration_seconds", "Predictions, by HTTP status code.", ("code",)
)


class Rows(BaseModel):
    """A request: rows of numbers."""

    instances: list[list[float]]


def load(path: Path):
    """The model; the process ends with a sentence when there is none."""
    try:
        return joblib.load(path)
    except FileNotFoundError:
        sys.exit(f"There is no {path.name} in {path.parent}: publish the model under that name.")
    except Exception as error:  # whatever the file's bytes make joblib say
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(f"{path.name} is not a scikit-learn model that this server can load: {reason}")


def application(name: str, model) -> FastAPI:
    """The HTTP API of one model."""
    app = FastAPI(title=name)

    @app.get("/models/{asked}/ready")
    def ready(asked: str) -> dict[str, str]:
        if asked != name:
            raise HTTPException(404, f"this server has the model {name}")
        return {"model": name}

    @app.post("/models/{asked}/predict")
    def predict(asked: str, rows: Rows) -> dict[str, list[float]]:
        ready(asked)
        try:
            return {"predictions": [float(value) for value in model.predict(rows.instances)]}
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.middleware("http")
    async def measure(request: Request, answer):
        begin = time.perf_counter()
        code = 500
        try:
            response = await answer(request)
            code = response.status_code
            return response
        finally:
            if request.url.path.endswith("/predict"):
                DURATION.labels(str(code)).observe(time.perf_counter() - begin)

    return app


def main() -> None:
    """Load, then serve: the port opens when the model is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    model = load(given.model)
    uvicorn.run(application(given.name, model), host="0.0.0.0", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
