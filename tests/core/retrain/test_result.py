"""What may be served: a digest, and a place under an allowed prefix, however it is spelt."""

from __future__ import annotations

import json

import pytest

from mooring.core.retrain.result import Unacceptable, check, own_prefix, read_words

DIGEST = "sha256:" + "a" * 64
PREFIXES = (
    "s3://models/fraud/", "pvc://claim/", "https://models.example.com:8443/a/",
    "gs://models/fraud/", "az://models@shop/fraud/", "az://$web@shop/fraud/",
    "abfss://models@shop.dfs.core.windows.net/fraud/",
)  # fmt: skip


def result(uri: str = "s3://models/fraud/v8", digest: object = DIGEST) -> dict[str, object]:
    return {"uri": uri, "digest": digest}


def test_metrics_that_no_status_can_hold_are_left_out() -> None:
    """JSON can spell half of a surrogate pair, which cannot be sent."""
    words = json.dumps({**result(), "metrics": {"a": "\ud800", "\ud800": 1, "b": 0.5}})
    assert check(read_words(words), PREFIXES).metrics == {"b": "0.5"}


@pytest.mark.parametrize(
    "uri",
    [
        "s3://models/fraud/v8",
        "s3://models/fraud/2026/11/21/",
        "pvc://claim/model.onnx",
        "https://models.example.com:8443/a/b.tar.gz",
        "gs://models/fraud/v8",
        "az://models@shop/fraud/v8",
        "az://$web@shop/fraud/v8",
        "abfss://models@shop.dfs.core.windows.net/fraud/v8/",
        "s3://models/fraud/..v8",
        "s3://models/fraud/...",
    ],
)
def test_what_lies_under_a_prefix_is_accepted(uri: str) -> None:
    assert check(result(uri), PREFIXES).uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "s3://models/fraud-evil/v8",
        "s3://models/fraud",
        "s3://models/fraud/",
        "s3://models/other/v8",
        "s3://models2/fraud/v8",
        "S3://models/fraud/v8",
        "s3://models/fraud/../other/v8",
        "s3://models/fraud/..",
        "s3://models/fraud/./v8",
        "s3://models/fraud//v8",
        "s3://models/fraud/%2e%2e/other",
        "s3://models/fraud/v8?versionId=1",
        "s3://models/fraud/v8#x",
        "s3://models/fraud\\..\\other",
        "s3://models/fraud/v 8",
        "s3://models/fraud/v8\n",
        "s3://models/fraud/ｖ8",
        "s3://user@models/fraud/v8",
        "gs://models@shop/fraud/v8",
        "gs://models/fraud/v8#1",
        "az://models/fraud/v8",
        "az://models@other/fraud/v8",
        "az://models@shop@evil/fraud/v8",
        "az://models@shop:443/fraud/v8",
        "abfss://models@shop/fraud/v8",
        "hf://models/fraud/v8",
        "https://models.example.com:8443@evil.example/a/v8",
        "https://models.example.com/a/v8",
        "http://models.example.com:8443/a/v8",
        "file:///a/v8",
        "oci://models/fraud/v8",
        "pvc://claim2/v8",
        "models/fraud/v8",
        "s3://models/fraud/" + "x" * 2048,
        "",
    ],
)
def test_what_only_looks_like_it_is_refused_in_a_sentence(uri: str) -> None:
    with pytest.raises(Unacceptable) as refused:
        check(result(uri), PREFIXES)
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "digest",
    [None, "", 7, "sha256:abc", DIGEST.upper(), DIGEST + "\n", "md5:" + "a" * 64, [DIGEST]],
)
def test_a_digest_is_required(digest: object) -> None:
    with pytest.raises(Unacceptable, match="digest"):
        check(result(digest=digest), PREFIXES)


@pytest.mark.parametrize("raw", [None, [], "s3://models/fraud/v8", 7, {}])
def test_what_is_no_result_is_refused(raw: object) -> None:
    with pytest.raises(Unacceptable):
        check(raw, PREFIXES)


def test_metrics_are_kept_as_text_and_what_is_none_is_left_out() -> None:
    metrics = {"accuracy": 0.93, "loss": "0.1", "flag": True, "deep": {"a": 1}, "long": "x" * 65}
    found = check({**result(), "metrics": metrics}, PREFIXES)
    assert found.metrics == {"accuracy": "0.93", "loss": "0.1"}


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://models/fraud/v7", ("s3://models/fraud/",)),
        ("s3://models/fraud/v7/", ("s3://models/fraud/",)),
        ("s3://models/v7", ("s3://models/",)),
        ("pvc://claim", ("pvc://claim/",)),
        ("https://host:1/a/b.onnx", ("https://host:1/a/",)),
        ("gs://models/fraud/v7", ("gs://models/fraud/",)),
        ("az://models@shop/fraud/v7", ("az://models@shop/fraud/",)),
        ("hf://org/fraud", ()),
        ("file:///models/fraud", ()),
    ],
)
def test_a_models_own_prefix_is_its_folder(uri: str, prefix: tuple[str, ...]) -> None:
    assert own_prefix(uri) == prefix


def test_the_last_words_may_come_after_others() -> None:
    assert read_words('{"uri": "a"}') == {"uri": "a"}
    assert read_words('epoch 1\nepoch 2\n{"uri": "a"}\n') == {"uri": "a"}


@pytest.mark.parametrize("text", ["", "done", "[1]", '{"uri": ', "7\n8"])
def test_words_without_a_result_are_said_to_be_none(text: str) -> None:
    with pytest.raises(Unacceptable, match="termination-log"):
        read_words(text)
