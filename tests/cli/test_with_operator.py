"""The command line and the operator together: a verb typed by a person is carried out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.apiserver.cluster import Api, Operator, deploy, install, settings, until
from tests.apiserver.pods import Pods

from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver

OPERATOR = Path(__file__).parents[2] / "operator"


async def test_a_restart_is_accepted_rolled_out_and_recorded(
    control_plane_with_crds: ControlPlane,
) -> None:
    kubeconfig = control_plane_with_crds.kubeconfig

    async def mooring(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "mooring", *arguments, "-n", namespace],
            env={**os.environ, "PYTHONPATH": str(OPERATOR), "KUBECONFIG": str(kubeconfig)},
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    async with Api.connect(kubeconfig) as api:
        namespace = await api.namespace("verbs")
        await install(api, namespace)
        await deploy(api, namespace)
        async with Operator.run(kubeconfig, settings(namespace)), Pods(api, namespace):
            await until(lambda: api.ready(namespace, "fraud"), "ready")
            first = (await api.resource(namespace, "fraud"))["status"]["stable"]["revision"]

            assert (await mooring("explain", "fraud"))[0] == 0
            code, output = await mooring("retry", "fraud", "--revision", first)
            assert (code, output) == (
                1,
                f"Refused: retry {first}: revision {first} is not rejected\n",
            )
            code, output = await mooring("restart", "fraud", "--timeout", "60s")
            assert (code, output.split(":")[0]) == (0, "Accepted")
            code, output = await mooring("status", "fraud", "--timeout", "60s")
            assert (code, "rolled out: " in output) == (0, True), output

            _, output = await mooring("history", "fraud", "-o", "json")
            newest, oldest = json.loads(output)
            assert (newest["state"], oldest["state"]) == ("stable", "promoted")
            assert oldest["revision"] == first
            assert newest["restart"].startswith(first)
