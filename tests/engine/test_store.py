"""The store: newer wins, gone stays gone, and whoever is concerned is looked at."""

from __future__ import annotations

import pytest
from tests.engine.objects import child, model, raw

from mooring.core import kinds
from mooring.core.kinds import Ref
from mooring.engine.queue import Key
from mooring.engine.store import Store, Writing

FRAUD, OTHER = Key("shop", "fraud"), Key("shop", "other")


@pytest.fixture
def store() -> Store:
    return Store()


def test_an_older_version_never_replaces_a_newer_one(store: Store) -> None:
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 7, spec={"new": 1})) == {FRAUD}
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 6, spec={"old": 1})) == set()
    found = store.get(kinds.SERVICE, "shop", "fraud")
    assert found is not None
    assert found["spec"] == {"new": 1}


def test_versions_are_numbers_not_text(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 99))
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 100)) == {FRAUD}


def test_the_same_version_again_is_no_news(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 3))
    assert store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 3)) == set()


def test_another_uid_is_another_object(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 5, uid="u1"))
    assert store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 6, uid="u2")) == {FRAUD}
    assert store.versions(kinds.MODEL_DEPLOYMENT) == {("shop", "fraud"): ("u2", "6")}


def test_the_removal_of_a_predecessor_does_not_touch_its_successor(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 6, uid="u2"))
    assert store.remove(kinds.MODEL_DEPLOYMENT, model("fraud", 5, uid="u1")) == set()
    assert store.get(kinds.MODEL_DEPLOYMENT, "shop", "fraud") is not None


def test_a_late_answer_about_a_predecessor_does_not_replace_its_successor(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 9, uid="c2"))
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 8, uid="c1")) == set()
    assert store.versions(kinds.SERVICE) == {("shop", "fraud"): ("c2", "9")}


def test_what_a_watch_reported_deleted_is_not_brought_back_by_a_late_answer(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
    assert store.remove(kinds.SERVICE, child(kinds.SERVICE, "fraud", 8)) == {FRAUD}
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 7)) == set()
    assert store.get(kinds.SERVICE, "shop", "fraud") is None


def test_what_was_seen_to_be_gone_is_not_brought_back_whatever_its_version(store: Store) -> None:
    known = child(kinds.SERVICE, "fraud", 5)
    store.put(kinds.SERVICE, known)
    store.remove(kinds.SERVICE, known, gone=True)
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 9)) == set()


def test_a_child_that_lost_our_label_and_has_it_back_is_known_again(store: Store) -> None:
    """A watch with a selector says DELETED of an object that only left the selection."""
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
    store.remove(kinds.SERVICE, child(kinds.SERVICE, "fraud", 6))
    bare = raw(kinds.SERVICE, "fraud", 6, uid="c1")
    store.put(kinds.SERVICE, bare)
    assert store.get(kinds.SERVICE, "shop", "fraud") is not None, "as read after a conflict"
    assert store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 7)) == {FRAUD}
    assert Ref("Service", "fraud") in store.children(FRAUD)


def test_a_late_report_of_the_lost_label_does_not_hide_what_was_mended_since(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 7))
    assert store.remove(kinds.SERVICE, child(kinds.SERVICE, "fraud", 6)) == set()
    assert Ref("Service", "fraud") in store.children(FRAUD)


def test_children_are_found_by_the_label_of_their_deployment(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "a", 1, uid="a"))
    store.put(kinds.CONFIG_MAP, child(kinds.CONFIG_MAP, "b", 1, uid="b"))
    store.put(kinds.SERVICE, child(kinds.SERVICE, "c", 1, uid="c", of="other"))
    assert set(store.children(FRAUD)) == {Ref("Service", "a"), Ref("ConfigMap", "b")}
    assert set(store.children(OTHER)) == {Ref("Service", "c")}


def test_a_child_whose_label_changes_moves_and_wakes_both(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "a", 1))
    touched = store.put(kinds.SERVICE, child(kinds.SERVICE, "a", 2, of="other"))
    assert touched == {FRAUD, OTHER}
    assert store.children(FRAUD) == {}
    assert set(store.children(OTHER)) == {Ref("Service", "a")}


def test_a_removed_child_leaves_the_index_and_wakes_its_deployment(store: Store) -> None:
    store.put(kinds.SERVICE, child(kinds.SERVICE, "a", 1))
    assert store.remove(kinds.SERVICE, child(kinds.SERVICE, "a", 2)) == {FRAUD}
    assert store.children(FRAUD) == {}


def test_an_edited_cluster_runtime_wakes_all_its_users_and_no_others(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 1, uid="1"))
    store.put(kinds.MODEL_DEPLOYMENT, model("other", 2, uid="2", runtime="triton"))
    runtime = raw(kinds.CLUSTER_MODEL_RUNTIME, "onnx", 3, uid="r", spec={})
    assert store.put(kinds.CLUSTER_MODEL_RUNTIME, runtime) == {FRAUD}


def test_an_edited_runtime_of_a_namespace_wakes_only_users_in_it(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 1, uid="1"))
    there = model("fraud", 2, uid="2")
    there["metadata"]["namespace"] = "bank"
    store.put(kinds.MODEL_DEPLOYMENT, there)
    runtime = raw(kinds.MODEL_RUNTIME, "onnx", 3, uid="r", namespace="bank", spec={})
    assert store.put(kinds.MODEL_RUNTIME, runtime) == {Key("bank", "fraud")}
    assert store.remove(kinds.MODEL_RUNTIME, {**runtime}) == {Key("bank", "fraud")}


def test_a_deployment_that_changes_its_runtime_is_woken_by_the_new_one_alone(store: Store) -> None:
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 1))
    store.put(kinds.MODEL_DEPLOYMENT, model("fraud", 2, runtime="triton"))
    onnx = raw(kinds.CLUSTER_MODEL_RUNTIME, "onnx", 3, uid="r1", spec={})
    triton = raw(kinds.CLUSTER_MODEL_RUNTIME, "triton", 4, uid="r2", spec={})
    assert store.put(kinds.CLUSTER_MODEL_RUNTIME, onnx) == set()
    assert store.put(kinds.CLUSTER_MODEL_RUNTIME, triton) == {FRAUD}


def test_a_namespaces_own_runtime_hides_the_clusters(store: Store) -> None:
    one = raw(kinds.CLUSTER_MODEL_RUNTIME, "onnx", 1, uid="r1", spec={"image": "cluster"})
    two = raw(kinds.MODEL_RUNTIME, "onnx", 2, uid="r2", spec={"image": "own"})
    store.put(kinds.CLUSTER_MODEL_RUNTIME, one)
    store.put(kinds.MODEL_RUNTIME, two)
    assert store.runtimes("shop")["onnx"].spec == {"image": "own"}
    assert store.runtimes("bank")["onnx"].spec == {"image": "cluster"}


def test_managed_fields_are_not_kept(store: Store) -> None:
    obj = child(kinds.SERVICE, "a", 1)
    obj["metadata"]["managedFields"] = [{"manager": "x"}]
    store.put(kinds.SERVICE, obj)
    found = store.get(kinds.SERVICE, "shop", "a")
    assert found is not None
    assert "managedFields" not in found["metadata"]
    assert "managedFields" in obj["metadata"], "what was handed in is not changed"


def test_what_is_remembered_of_the_deleted_is_bounded(store: Store) -> None:
    for number in range(10_500):
        store.remove(kinds.SERVICE, child(kinds.SERVICE, "a", number, uid=str(number)))
    assert len(store._deleted) == 10_000
    late = child(kinds.SERVICE, "a", 1, uid="10499")
    assert store.put(kinds.SERVICE, late) == set(), "the latest ones are remembered"


def test_what_a_watch_says_of_our_own_write_before_its_answer_is_no_news(store: Store) -> None:
    echo = child(kinds.SERVICE, "fraud", 5)
    with store.writing(kinds.SERVICE, "shop", "fraud") as under_way:
        assert store.absorb(kinds.SERVICE, echo)
        assert store.get(kinds.SERVICE, "shop", "fraud") is None, "it waits for the answer"
        store.put(kinds.SERVICE, echo)
    assert under_way.touched == set()


def test_a_change_by_somebody_else_during_our_write_is_news_once_it_is_over(store: Store) -> None:
    with store.writing(kinds.SERVICE, "shop", "fraud") as under_way:
        store.absorb(kinds.SERVICE, child(kinds.SERVICE, "fraud", 6, spec={"by": "others"}))
        store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
    assert under_way.touched == {FRAUD}
    found = store.get(kinds.SERVICE, "shop", "fraud")
    assert found is not None
    assert found["spec"] == {"by": "others"}


def test_what_came_during_a_write_that_failed_is_taken_in(store: Store) -> None:
    """Its answer may be lost though it was carried out."""
    seen: list[Writing] = []

    def failing() -> None:
        with store.writing(kinds.SERVICE, "shop", "fraud") as under_way:
            seen.append(under_way)
            store.absorb(kinds.SERVICE, child(kinds.SERVICE, "fraud", 5))
            raise ConnectionError

    with pytest.raises(ConnectionError):
        failing()
    assert seen[0].touched == {FRAUD}
    assert store.get(kinds.SERVICE, "shop", "fraud") is not None


def test_only_known_versions_are_absorbed_when_nothing_is_written(store: Store) -> None:
    known = child(kinds.SERVICE, "fraud", 5)
    assert not store.absorb(kinds.SERVICE, known), "it is not there yet"
    store.put(kinds.SERVICE, known)
    assert store.absorb(kinds.SERVICE, known)
    assert not store.absorb(kinds.SERVICE, child(kinds.SERVICE, "fraud", 6))


def test_a_request_belongs_to_whom_it_names_whatever_its_labels() -> None:
    store = Store()
    request = {
        "metadata": {"name": "by-hand", "namespace": "shop", "uid": "r1", "resourceVersion": "5"},
        "spec": {"deploymentRef": {"name": "fraud"}},
    }
    assert store.put(kinds.RETRAINING_REQUEST, request) == {Key("shop", "fraud")}
    assert list(store.requests(Key("shop", "fraud"))) == ["by-hand"]
    assert store.children(Key("shop", "fraud")) == {}
    assert store.remove(kinds.RETRAINING_REQUEST, request, gone=True) == {Key("shop", "fraud")}
    assert store.requests(Key("shop", "fraud")) == {}


def test_a_request_that_names_nobody_concerns_nobody() -> None:
    store = Store()
    request = {"metadata": {"name": "a", "namespace": "shop", "uid": "r", "resourceVersion": "5"}}
    assert store.put(kinds.RETRAINING_REQUEST, request) == set()


def test_objects_at_rest_are_what_they_were_and_few_are_kept_as_values() -> None:
    store = Store(in_use=3)
    objects = [child(kinds.SERVICE, f"fraud-{i}", 10 + i, spec={"port": i}) for i in range(9)]
    for obj in objects:
        store.put(kinds.SERVICE, obj)
    held = store._objects[kinds.SERVICE.name].values()
    assert sum(one.values is not None for one in held) == 3
    for obj in objects:
        assert store.get(kinds.SERVICE, "shop", obj["metadata"]["name"]) == obj
    assert list(store.children(FRAUD).values()) == objects
    assert sum(one.values is not None for one in held) == 3


def test_what_is_used_again_stays_in_use() -> None:
    store = Store(in_use=2)
    for i in range(2):
        store.put(kinds.SERVICE, child(kinds.SERVICE, f"fraud-{i}", 10 + i))
    first = store.get(kinds.SERVICE, "shop", "fraud-0")
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud-2", 12))
    assert store.get(kinds.SERVICE, "shop", "fraud-0") is first


def test_what_is_replaced_or_removed_is_not_in_use_any_more() -> None:
    store = Store(in_use=2)
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 10))
    store.put(kinds.SERVICE, child(kinds.SERVICE, "fraud", 11))
    assert len(store._in_use) == 1
    store.remove(kinds.SERVICE, child(kinds.SERVICE, "fraud", 12))
    assert not store._in_use
