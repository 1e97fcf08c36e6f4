"""One fault at one place, and the same end as without it.

Stories are told once undisturbed, then with one fault at one of their requests or watch events: a
seeded slice here, all of them by ``make faults-full``. A failing run prints the one line that
repeats it:

    make fault CASE='update/lost@apply:Deployment fraud-…:1'
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from tests.faults.crew import Crew, Line
from tests.faults.proxy import REQUEST_FAULTS, WATCH_FAULTS, Fault
from tests.faults.runs import Case, cases

from mooring_dev.control_plane import ControlPlane

pytestmark = pytest.mark.faults

SEED = 20261121
#: The slice tells stories that between them write every kind of object and ask Prometheus.
_SLICE = ("update", "canary", "evidence", "retrain")
_CLASSES = (*REQUEST_FAULTS, *WATCH_FAULTS, "query")
Tried = dict[str, list[tuple[Case, Future[Line]]]]


@pytest.fixture(scope="module")
def tried(
    cluster: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Tried]:
    """The cases of all classes that are asked for, begun at once and tried several at a time."""
    runs = request.config.getoption("--fault-runs") or 1
    seed = request.config.getoption("--fault-seed") or SEED
    asked = [
        str(item.callspec.params["what"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
        if hasattr(item, "callspec")
    ] or list(_CLASSES)
    folder = tmp_path_factory.mktemp("histories")
    with Crew.at_work(cluster.kubeconfig) as crew:
        recording = {story: crew.record(story) for story in _SLICE}
        told = {story: future.result() for story, future in recording.items()}
        possible = [case for story in _SLICE for case in cases(story, told[story].places)]
        found: Tried = {}
        for what in asked:
            of_class = [case for case in possible if case.fault.what.startswith(what)]
            chosen = random.Random(f"{seed} {what}").sample(of_class, min(runs, len(of_class)))
            found[what] = [(c, crew.try_case(c, told[c.story], folder)) for c in chosen]
        yield found


@pytest.mark.parametrize("what", _CLASSES)
def test_a_single_fault_of_each_class_changes_nothing_of_the_end(tried: Tried, what: str) -> None:
    """I1 to I7 and I10 for a seeded choice of places; those of Prometheus count as one class."""
    assert tried[what]
    for case, future in tried[what]:
        found = "\n".join(future.result().findings)
        assert not found, f"{found}\nto repeat it:\n    {case.command}"


def test_nearly_all_of_these_faults_were_done(tried: Tried) -> None:
    """asyncio does not order requests, so a run may not come by its place; most of them do."""
    struck = {str(case): future.result().struck for of in tried.values() for case, future in of}
    missed = [case for case, done in struck.items() if not done]
    assert len(missed) * 4 <= len(struck), missed


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
