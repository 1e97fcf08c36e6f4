"""What is kept in the cluster can be written over by others: read again, it is itself or refused.

Each document is altered at one place by anything that JSON can hold, or replaced by what is none.
A reader may take it, or say in its own way that it cannot; nothing else may come of it, since that
would stop the whole object with an error of ours.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.collector.references import reference
from tests.core.drift.collected import traffic
from tests.core.drift.test_tick import followed
from tests.core.given import copied
from tests.core.test_steps import in_step

from mooring.adapters.mlflow import MlflowRegistry, RegistryAccess
from mooring.api import parse_duration
from mooring.core.answers import Answer, Keyed, NoAnswer, parse_body, read_envelope, read_keyed
from mooring.core.drift.memory import Memory
from mooring.core.drift.reference import InvalidReference, Reference
from mooring.core.examination import unpack
from mooring.core.kinds import ANNOTATION_TABLE, Ref
from mooring.core.model_uri import parse
from mooring.core.monitoring import Report
from mooring.core.quantity import canonical
from mooring.core.registry import NotRegistered, Registered
from mooring.core.render.router.table import read_table
from mooring.core.retrain.result import Unacceptable, check, read_words
from mooring.core.retrain.schedule import parse_schedule
from mooring.core.revision import read_history
from mooring.core.verbs import parse_action

#: Deeper than the parser goes: a few kilobytes, as a termination message or an annotation holds.
DEEP = ("[" * 4000, '{"a":' * 2000)
_ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1e999, -1e999, float("nan"), 10**400, "", "x", "9999-99-99T99:99:99Z",
     "0001-01-01T00:00:00Z", [], {}, [1], [[]], {"a": 1}, ["x", 2, None]]
)  # fmt: skip


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document, itself included."""
    yield at
    if isinstance(document, dict):
        for key, value in document.items():
            yield from places(value, (*at, key))
    elif isinstance(document, list):
        for number, value in enumerate(document[:3]):
            yield from places(value, (*at, number))


def altered(document: Any) -> st.SearchStrategy[Any]:
    """The document with one thing in it replaced, or removed."""

    def change(where: tuple[Any, ...], odd: Any, removed: bool) -> Any:
        if not where:
            return odd
        found = copied(document)
        inner = found
        for key in where[:-1]:
            inner = inner[key]
        if removed:
            del inner[where[-1]]
        else:
            inner[where[-1]] = odd
        return found

    return st.builds(change, st.sampled_from(list(places(document))), _ODD, st.booleans())


def tried(read: Callable[[], Any], refusal: type[Exception]) -> Any:
    """What was read, or the sentence by which it was refused."""
    try:
        return read()
    except refusal as refused:
        return str(refused) or pytest.fail("refused without a word")


QUICK = settings(max_examples=60, deadline=None)
_REFERENCE = json.loads(reference().to_text())


def _memory_and_report() -> tuple[Any, Any]:
    windows = {hour: traffic(hour, shift=0.5 if hour >= 6 else 0.0) for hour in range(1, 9)}
    memory, report = followed(windows)[-1]
    return json.loads(zlib.decompress(memory.to_bytes())), json.loads(report.to_text())


_MEMORY, _REPORT = _memory_and_report()


@QUICK
@given(altered(_REFERENCE))
def test_a_reference_that_was_edited_is_read_or_refused(document: Any) -> None:
    found = tried(lambda: Reference.from_text(json.dumps(document)), InvalidReference)
    assert isinstance(found, str) or found.grid_hash == document["grid"]


@QUICK
@given(altered(_MEMORY))
def test_a_memory_of_drift_that_was_edited_is_read_or_refused(document: Any) -> None:
    data = zlib.compress(json.dumps(document).encode())
    assert isinstance(tried(lambda: Memory.from_bytes(data), ValueError), Memory | str)


@QUICK
@given(altered(_REPORT))
def test_a_report_of_drift_that_was_edited_is_read_or_refused(document: Any) -> None:
    text = json.dumps(document)
    assert isinstance(tried(lambda: Report.from_text(text), ValueError), Report | str)


def _records() -> dict[Ref, Any]:
    world, _, _ = in_step()
    return {ref: child for ref, child in world.children.items() if ref.kind == "ControllerRevision"}


_RECORDS = _records()
_KEYS = sorted({key for one in _RECORDS.values() for key in one["metadata"]["annotations"]})


@QUICK
@given(st.sampled_from(sorted(_RECORDS)), st.data())
def test_a_record_that_was_edited_is_read_or_named(ref: Ref, data: st.DataObject) -> None:
    record = copied(_RECORDS[ref])
    if data.draw(st.booleans()):
        record["data"] = data.draw(altered(record["data"]))
    else:
        annotations = record["metadata"]["annotations"]
        key = data.draw(st.sampled_from(_KEYS))
        texts = st.one_of(st.sampled_from(DEEP), _ODD.map(json.dumps))
        held = annotations.get(key, "")
        if held.startswith("{"):
            texts = st.one_of(texts, altered(json.loads(held)).map(json.dumps))
        annotations[key] = data.draw(texts)
    found = read_history({**_RECORDS, ref: record})
    assert len(found.revisions) + len(found.unreadable) == len(_RECORDS)
    assert set(found.unreadable) <= {ref.name}


def _router() -> Any:
    world, _, _ = in_step()
    return world.children[Ref("ConfigMap", "fraud-router")]


_ROUTER = _router()


@QUICK
@given(altered(json.loads(_ROUTER["metadata"]["annotations"][ANNOTATION_TABLE])))
def test_a_table_that_was_edited_is_read_or_none(document: Any) -> None:
    live = copied(_ROUTER)
    live["metadata"]["annotations"][ANNOTATION_TABLE] = json.dumps(document)
    found = read_table(live)
    assert found is None or found[0].route.revisions <= {b.revision for b in found[0].backends}


@QUICK
@given(altered({"uri": "s3://models/fraud/v2", "digest": "sha256:" + "1" * 64,
                "metrics": {"auc": 0.9, "text": "0.5"}}))  # fmt: skip
def test_a_result_of_training_is_taken_or_refused_in_a_sentence(document: Any) -> None:
    found = tried(lambda: check(read_words(json.dumps(document)), ("s3://models/",)), Unacceptable)
    if not isinstance(found, str):
        assert (found.uri, found.digest) == (document["uri"], document["digest"])


_VECTOR = {
    "status": "success",
    "data": {"resultType": "vector", "result": [
        {"metric": {"a": "b"}, "value": [1.5, "2"]}, {"metric": {"a": "c"}, "value": [1.5, "NaN"]},
    ]},
    "warnings": ["w"], "infos": ["i"], "isPartial": False,
}  # fmt: skip


@QUICK
@given(altered(_VECTOR))
def test_an_answer_of_prometheus_is_an_answer_or_a_sentence(document: Any) -> None:
    body = json.dumps(document).encode()
    assert isinstance(read_envelope(parse_body(body)), Answer | NoAnswer)
    assert isinstance(read_keyed(body, "a"), Keyed | NoAnswer)


@pytest.mark.parametrize("text", DEEP)
def test_what_is_nested_without_end_is_refused_like_anything_else(text: str) -> None:
    """The parser raises RecursionError for it, which no reader expects of JSON."""
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    assert unpack(packed) is None
    live = copied(_ROUTER)
    live["metadata"]["annotations"][ANNOTATION_TABLE] = text
    assert read_table(live) is None
    readers: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: read_words(text), Unacceptable),
        (lambda: Reference.from_text(text), InvalidReference),
        (lambda: Report.from_text(text), ValueError),
        (lambda: Memory.from_bytes(zlib.compress(text.encode())), ValueError),
    ]
    for reader, refusal in readers:
        with pytest.raises(refusal):
            reader()


def test_a_training_job_whose_last_words_are_brackets_has_left_no_result() -> None:
    """4096 bytes are what a kubelet keeps of them."""
    with pytest.raises(Unacceptable, match="the Job left no result"):
        read_words("[" * 4096)


_TEXT = st.one_of(
    st.text(max_size=40),
    st.text("0123456789.hmsµ+- */,@:=%~x", max_size=12),
    st.text("0123456789 */,-", max_size=20),
    st.sampled_from(["9" * 5000, "1" * 400 + "h", "0-0-0 * * * *", "s3://", "pvc://", "oci://@"]),
)


@settings(max_examples=200, deadline=None)
@given(_TEXT)
def test_any_text_is_a_value_or_refused_by_every_reader_of_texts(text: str) -> None:
    """Durations, quantities, schedules, addresses of models, verbs: what a person writes."""
    for read in (parse_duration, canonical, parse_schedule, parse, _action):
        found = tried(lambda read=read: read(text), ValueError)  # type: ignore[misc]
        assert found is not None


def _action(text: str) -> Any:
    return parse_action(text, "fraud")


_REGISTERED = {
    "model_version": {"version": "3", "status": "READY", "tags": [{"key": "a", "value": "b"}]},
    "artifact_uri": "s3://models/fraud/3",
}


@QUICK
@given(altered(_REGISTERED))
def test_any_answer_of_a_model_registry_is_an_answer_or_a_sentence(document: Any) -> None:
    registry = MlflowRegistry(RegistryAccess("http://registry"))

    async def said(path: str, query: Mapping[str, str]) -> Any:
        return document if isinstance(document, dict) else {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowRegistry, "_ask", lambda _, path, query: said(path, query))
        found = asyncio.run(registry.resolve("mlflow://fraud@champion"))
    assert isinstance(found, Registered | NotRegistered)
