"""Which URIs are understood, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.uri import archive_kind, file_name, parse_uri


@pytest.mark.parametrize(
    ("text", "scheme", "host", "path"),
    [
        ("s3://models/fraud/v7", "s3", "models", "fraud/v7"),
        ("s3://models/fraud/v7/", "s3", "models", "fraud/v7/"),
        ("s3://models", "s3", "models", ""),
        ("s3://models/odd name?#%41.onnx", "s3", "models", "odd name?#%41.onnx"),
        ("S3://models/a", "s3", "models", "a"),
        ("gs://models/fraud/v7", "gs", "models", "fraud/v7"),
        ("az://models/fraud/v7", "az", "models", "fraud/v7"),
        ("hf://org/repo", "hf", "org/repo", ""),
        ("hf://org/repo@v1/onnx/model.onnx", "hf", "org/repo", "onnx/model.onnx"),
        ("oci://host:5000/team/fraud:v7", "oci", "host:5000", "team/fraud"),
        ("https://host:8443/a/b.onnx?X-Amz-Signature=1", "https", "host:8443", "a/b.onnx"),
        ("https://[::1]/m.onnx", "https", "[::1]", "m.onnx"),
        ("pvc://claim/models/fraud", "pvc", "claim", "models/fraud"),
        ("pvc://claim", "pvc", "claim", ""),
    ],
)
def test_a_good_uri_is_taken_apart(text: str, scheme: str, host: str, path: str) -> None:
    uri = parse_uri(text)
    assert (uri.scheme, uri.host, uri.path) == (scheme, host, path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("models/fraud", "no scheme"),
        ("s3:/models/x", "no scheme"),
        ("s3://", "does not name a bucket"),
        ("s3:///key", "does not name a bucket"),
        ("s3://user:pw@bucket/key", "does not name a bucket"),
        ("http://host/m.onnx", "use https"),
        ("https://host/", "no file name"),
        ("https://host/a/..", "no file name"),
        ("https://host/a%2F..%2Fb", "no file name"),
        ("https:///m.onnx", "names no host"),
        ("https://host:99999/m.onnx", "not a URL"),
        ("https://[::1/m.onnx", "not a URL"),
        ("https://user:pw@host/m.onnx", "secretName"),
        ("https://host/m.onnx#frag", "fragment"),
        ("pvc://Claim_1/x", "PersistentVolumeClaim"),
        ("pvc://claim/../x", "'..'"),
        ("file:///models/x", "nothing is fetched"),
        ("gs:///x", "does not name a bucket"),
        ("az://Container/x", "does not name a container"),
        ("az://container@evil.example.com/x", "does not name a storage account"),
        ("hf://gpt2", "hf://organisation/repository"),
        ("hf://org/repo@/x", "revision after '@'"),
        ("hf://org/repo/../x", "'..'"),
        ("mlflow://model@alias", "the operator follows"),
        ("mlflow-artifacts+https://host/x", "none of an MLflow server's artifacts"),
        (
            "mlflow-artifacts+https://u@host/api/2.0/mlflow-artifacts/artifacts/1",
            "none of an MLflow",
        ),
        ("mlflow-artifacts+https://host/api/2.0/mlflow-artifacts/artifacts/../1", "none of an MLf"),
        ("oci://registry/x", "oci://registry/repository:tag"),
        ("oci://registry/X:1", "oci://registry/repository:tag"),
        ("oci://registry/x@sha256:12", "oci://registry/repository:tag"),
        ("oci://user:pw@registry/x:1", "does not name an image"),
        ("ftp://host/x", "unknown scheme"),
        (" s3://models/x", "outer spaces"),
        ("s3://models/x\n", "control characters"),
        ("s3://models/" + "x" * 3000, "characters"),
    ],
)
def test_a_bad_uri_is_refused_with_the_way_out(
    text: str, part: str, permanent: Callable[..., Any]
) -> None:
    with permanent(part):
        parse_uri(text)


@pytest.mark.parametrize(
    ("text", "qualifier"),
    [
        ("hf://org/repo", ""),
        ("oci://host/x:v7", "v7"),
        (f"oci://host/x@sha256:{'0' * 64}", f"@sha256:{'0' * 64}"),
        (f"oci://host/x:v7@sha256:{'0' * 64}", f"v7@sha256:{'0' * 64}"),
        ("hf://org/repo@refs%2Fpr%2F1/x", "refs/pr/1"),
        ("az://models@fraudstore/x", "fraudstore"),
        (
            "abfss://models@fraudstore.dfs.core.windows.net/x",
            "fraudstore.dfs.core.windows.net",
        ),
    ],
)
def test_a_revision_and_an_account_are_told_apart_from_the_path(text: str, qualifier: str) -> None:
    assert parse_uri(text).qualifier == qualifier
    assert parse_uri(text).path in ("", "x")
    assert parse_uri(text).shown == text


def test_http_is_read_only_where_it_is_allowed() -> None:
    assert parse_uri("http://host/m.onnx", allow_http=True).scheme == "http"


def test_neither_password_nor_signature_is_ever_repeated() -> None:
    with pytest.raises(PermanentFailure) as caught:
        parse_uri("https://user:hunter22@host/m.onnx")
    assert "hunter22" not in str(caught.value)
    shown = parse_uri("https://host/m.onnx?X-Amz-Signature=abcdef").shown
    assert shown == "https://host/m.onnx?…"


@given(
    st.text(max_size=60)
    | st.from_regex(r"(s3|gs|az|abfs|oci|https?|pvc|file|hf)://\S{0,40}", fullmatch=True)
)
def test_any_text_is_either_understood_or_refused_in_one_sentence(text: str) -> None:
    try:
        uri = parse_uri(text, allow_http=True)
    except PermanentFailure as failure:
        assert len(str(failure)) < 6000  # noqa: PT017
    else:
        assert uri.host
        if uri.scheme in ("http", "https"):
            name = file_name("/" + uri.path)
            assert name
            assert "/" not in name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("m.tar", "tar"),
        ("m.tar.gz", "tar.gz"),
        ("M.TGZ", "tar.gz"),
        ("m.zip", "zip"),
        ("m.mar", None),
        ("m.onnx", None),
        ("m.gz", None),
        ("tar", None),
    ],
)
def test_archives_are_known_by_their_suffix_and_a_mar_is_none(name: str, kind: str | None) -> None:
    assert archive_kind(name) == kind
