"""A registry that misbehaves is one sentence, and never more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.listening import Handler, listening

from mooring.adapters.mlflow import MlflowRegistry, RegistryAccess
from mooring.core.registry import UNAVAILABLE, Answer, NotRegistered, Registered

CHAMPION = "mlflow://fraud@champion"


async def resolved(answer: Handler, uri: str = CHAMPION, **access: Any) -> Answer:
    async with listening("GET", answer) as url:
        client = MlflowRegistry(RegistryAccess(url, **{"timeout": 2.0, **access}))
        try:
            return await client.resolve(uri)
        finally:
            await client.close()


def saying(text: str | bytes, status: int = 200, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        body = text if isinstance(text, bytes) else text.encode()
        return web.Response(body=body, status=status, headers=headers)

    return answer


def mlflow(**version: Any) -> Handler:
    """A registry in which the alias names version 7."""

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("get-download-uri"):
            return web.json_response({"artifact_uri": "s3://b/7"})
        return web.json_response({"model_version": {"version": "7", "status": "READY", **version}})

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (saying("<html>", 200), "answered 200"),
        (saying("[]", 200), "answered 200"),
        (saying("{}", 200), "does not answer as MLflow does"),
        (saying('{"model_version": []}'), "does not answer as MLflow does"),
        (saying('{"model_version": {"version": "../7"}}'), "does not answer as MLflow does"),
        (saying("[" * 100_000), "answered 200"),
        (saying(b"\xff\xfe"), "answered 200"),
        (saying(b" " * 300_000), "without end"),
        (saying("{}", 500), "answered 500"),
        (saying("gone", 404), "answered 404"),
        (saying("{}", 401), "lets the operator not in"),
        (saying("", 302, Location="https://evil.example.com/"), "redirects are not followed"),
    ],
)
async def test_what_is_no_answer_is_told_and_asked_again(answer: Handler, words: str) -> None:
    found = await resolved(answer)
    assert isinstance(found, NotRegistered)
    assert (found.reason, found.lasting) == (UNAVAILABLE, False)
    assert found.message.startswith("the model registry ")
    assert words in found.message


async def test_nobody_there_and_nobody_who_answers() -> None:
    async def hang(request: web.Request) -> web.Response:
        assert request.transport is not None
        await request.content.read()
        import asyncio

        await asyncio.sleep(30)
        return web.Response()

    found = await resolved(hang, timeout=0.2)
    assert isinstance(found, NotRegistered)
    assert "did not answer within 0.2 s" in found.message
    client = MlflowRegistry(RegistryAccess("http://127.0.0.1:9", timeout=2.0))
    found = await client.resolve(CHAMPION)
    await client.close()
    assert isinstance(found, NotRegistered)
    assert "cannot be reached" in found.message


async def test_a_version_that_is_not_ready_is_waited_for() -> None:
    found = await resolved(mlflow(status="PENDING_REGISTRATION"))
    assert isinstance(found, NotRegistered)
    assert not found.lasting
    assert "PENDING_REGISTRATION" in found.message


async def test_the_credentials_are_read_for_every_question(tmp_path: Path) -> None:
    seen = []
    plain = mlflow()

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return await plain(request)

    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    assert await resolved(answer, bearer_token_file=secret) == Registered("fraud", "7", "s3://b/7")
    await resolved(answer, username="mooring", password_file=secret)
    assert seen == ["Bearer s3cret"] * 2 + ["Basic bW9vcmluZzpzM2NyZXQ="] * 2
    secret.unlink()
    found = await resolved(answer, bearer_token_file=secret)
    assert isinstance(found, NotRegistered)
    assert "cannot be read" in found.message
    assert len(seen) == 4


async def test_names_are_sent_as_they_are_and_nowhere_else() -> None:
    asked = []
    plain = mlflow()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, dict(request.query)))
        return await plain(request)

    await resolved(answer, "mlflow://team.fraud-2/12")
    assert asked == [
        ("/api/2.0/mlflow/model-versions/get", {"name": "team.fraud-2", "version": "12"}),
        (
            "/api/2.0/mlflow/model-versions/get-download-uri",
            {"name": "team.fraud-2", "version": "7"},
        ),
    ]


async def test_an_error_of_mlflow_about_something_else_is_not_a_missing_model() -> None:
    said = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"})
    found = await resolved(saying(said, 400))
    assert isinstance(found, NotRegistered)
    assert not found.lasting
