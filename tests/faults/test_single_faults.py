"""One fault at one place, and the same end as without it.

Stories are told once undisturbed, then with one fault at one of their requests or watch events: a
seeded slice here, all of them by ``make faults-full``. A failing run prints the one line that
repeats it:

    make fault CASE='update/lost@apply:Deployment fraud-…:1'
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.apiserver.cluster import Api
from tests.faults.proxy import REQUEST_FAULTS, WATCH_FAULTS, Fault
from tests.faults.runs import Case, Undisturbed, cases, record, try_case

from mooring_dev.control_plane import ControlPlane

# Fake routers answer at loopback addresses of their own.
pytestmark = [pytest.mark.faults, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

SEED = 20261121
#: The slice tells the two stories that between them write every kind of object.
_SLICE = ("update", "canary")


@pytest.fixture(scope="module")
def undisturbed(
    cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Undisturbed]:
    """Recorded once, in a loop of its own."""

    async def told() -> dict[str, Undisturbed]:
        async with Api.connect(cluster.kubeconfig) as api:
            folder = tmp_path_factory.mktemp("undisturbed")
            return {story: await record(api, folder, story) for story in _SLICE}

    return asyncio.run(told())


@pytest.mark.parametrize("what", [*REQUEST_FAULTS, *WATCH_FAULTS])
def test_a_single_fault_of_each_class_changes_nothing_of_the_end(
    cluster: ControlPlane,
    undisturbed: dict[str, Undisturbed],
    tmp_path: Path,
    what: str,
    request: pytest.FixtureRequest,
) -> None:
    """I1 to I4, I6, I7 and I10 for a seeded choice of places."""
    runs = request.config.getoption("--fault-runs") or 1
    chance = random.Random(f"{request.config.getoption('--fault-seed') or SEED} {what}")
    possible = [
        case
        for story in _SLICE
        for case in cases(story, undisturbed[story].places)
        if case.fault.what == what
    ]
    for case in chance.sample(possible, min(runs, len(possible))):
        _assert_unbroken(cluster, undisturbed[case.story], tmp_path, case)


def test_a_case_is_read_as_it_is_written() -> None:
    text = "canary/lost@apply:Deployment fraud-pkqknpcztn:2"
    assert str(Case.parse(text)) == text
    for wrong in (
        "lost@apply:x:1",
        "update/odd@apply:x:1",
        "update/lost@apply:x",
        "tale/lost@a:b:1",
    ):
        with pytest.raises(ValueError, match=r"no story|no fault"):
            Case.parse(wrong)
    assert Case.parse(text).fault == Fault.parse("lost@apply:Deployment fraud-pkqknpcztn:2")


def _assert_unbroken(
    cluster: ControlPlane, undisturbed: Undisturbed, folder: Path, case: Case
) -> None:
    async def run() -> None:
        async with Api.connect(cluster.kubeconfig) as api:
            outcome = await try_case(api, folder, case, undisturbed)
            found = "\n".join(outcome.findings)
            assert not found, f"{found}\nto repeat it:\n    {case.command}"

    asyncio.run(run())
