"""What is made of each answer that an S3 server may give, and of none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mooring_fetcher.credentials import Credentials, read_credentials
from mooring_fetcher.fetch import Request, Run, fetch
from mooring_fetcher.patience import Patience, RetryPolicy
from mooring_fetcher.stores import open_store
from mooring_fetcher.uri import parse_uri

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

URI = "s3://models/fraud/v7/model.onnx"
PATH = "/models/fraud/v7/model.onnx"
SECRET_KEY = "wJalrXUtnFEMI-never-print-me"


@pytest.fixture(autouse=True)
def no_ambient_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


Get = Callable[..., Any]


@pytest.fixture
def get(web: Loopback, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str = URI, **keys: str) -> Any:
        secret = {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": web.url,
            **keys,
        }
        return fetch(Request(uri, tmp_path / "models"), bench.run(secret=secret))

    return run


def error(status: int, code: str) -> dict[str, Any]:
    body = f"<Error><Code>{code}</Code><Message>because</Message></Error>"
    return {
        "status": status,
        "headers": {"Content-Type": "application/xml"},
        "body": body.encode(),
    }


NOTHING_LISTED = {
    "status": 200,
    "body": b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
}


@pytest.mark.parametrize(
    ("status", "code", "parts"),
    [
        (403, "AccessDenied", ["is denied to Secret fraud-store", "s3:GetObject", URI]),
        (400, "ExpiredToken", ["Secret fraud-store", "have expired", "AWS_SESSION_TOKEN"]),
        (404, "NoSuchBucket", ["bucket models does not exist", "AWS_ENDPOINT_URL"]),
        (404, "NoSuchKey", ["no object at", URI, "none below it"]),
        (403, "InvalidAccessKeyId", ["does not know the access key of Secret fraud-store"]),
        (400, "InvalidToken", ["does not know the access key"]),
        (403, "SignatureDoesNotMatch", ["AWS_SECRET_ACCESS_KEY does not belong"]),
        (403, "InvalidObjectState", ["archive storage", "restore"]),
        (400, "AuthorizationHeaderMalformed", ["another region", "AWS_DEFAULT_REGION"]),
        (400, "EntityTooLarge", ["EntityTooLarge (HTTP 400)", URI]),
    ],
)
def test_a_refusal_is_final_and_names_its_remedy(
    web: Loopback,
    get: Get,
    bench: Workbench,
    status: int,
    code: str,
    parts: list[str],
    permanent: Callable[..., Any],
) -> None:
    web.always[PATH] = error(status, code)
    web.always["/models"] = error(403, "AccessDenied") if status == 403 else NOTHING_LISTED
    with permanent(*parts):
        get()
    assert bench.clock.slept == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (500, "InternalError"),
        (503, "ServiceUnavailable"),
        (400, "RequestTimeout"),
        (403, "RequestTimeTooSkewed"),
        (429, "TooManyRequests"),
    ],
)
def test_a_server_in_trouble_is_asked_again(
    web: Loopback, get: Get, bench: Workbench, status: int, code: str
) -> None:
    web.put(PATH, b"weights")
    web.script(PATH, error(status, code), error(status, code))
    assert get().size == 7
    assert len(bench.clock.slept) == 2


def test_a_server_that_stays_in_trouble_is_given_up(
    web: Loopback, get: Get, transient: Callable[..., Any]
) -> None:
    web.always[PATH] = error(503, "SlowDown")
    with transient(f"{web.url} answered SlowDown for {URI}", "gave up"):
        get()


def test_an_endpoint_that_cannot_be_reached_is_given_up(
    get: Get, transient: Callable[..., Any]
) -> None:
    with transient("http://127.0.0.1:1", "was refused", "gave up"):
        get(AWS_ENDPOINT_URL="http://127.0.0.1:1")


@pytest.mark.parametrize("status", [404, 405])
def test_an_endpoint_that_is_no_s3_server_is_named(
    web: Loopback, get: Get, status: int, permanent: Callable[..., Any]
) -> None:
    web.always[PATH] = web.always["/models"] = {"status": status, "body": b"<html>Not <b>S3"}
    with permanent(f"{web.url} answered {status}", URI):
        get()


def test_an_untrusted_certificate_is_final(
    secure_web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    with permanent("is not trusted", "AWS_CA_BUNDLE"):
        get(AWS_ENDPOINT_URL=secure_web.url)


@pytest.mark.parametrize("key", ["AWS_CA_BUNDLE", "ca.crt"])
def test_a_secret_may_bring_its_authority(
    secure_web: Loopback, authority: tuple[Path, Path], tmp_path: Path, key: str
) -> None:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / key).write_bytes(authority[0].read_bytes())
    (folder / "AWS_ENDPOINT_URL").write_text(secure_web.url)
    secure_web.put(PATH, b"weights")
    found = fetch(Request(URI, tmp_path / "models"), Run(credentials=read_credentials(folder)))
    assert found.size == 7


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_verification_is_only_left_out_on_request(secure_web: Loopback, get: Get) -> None:
    secure_web.put(PATH, b"weights")
    assert get(AWS_ENDPOINT_URL=secure_web.url, S3_VERIFY_SSL="0").size == 7


def test_without_any_credentials_requests_are_not_signed(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    web.put(PATH, b"weights")
    fetch(Request(URI, tmp_path / "models"), Run())
    assert "Authorization" not in web.asked[0].headers


def test_a_session_token_and_region_of_the_secret_are_used(web: Loopback, get: Get) -> None:
    web.put(PATH, b"weights")
    get(AWS_SESSION_TOKEN="s3ss10n", AWS_REGION="eu-central-1")
    headers = web.asked[0].headers
    assert headers["X-Amz-Security-Token"] == "s3ss10n"
    assert "/eu-central-1/s3/" in headers["Authorization"]


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"AWS_ACCESS_KEY_ID": "x"}, "no key AWS_SECRET_ACCESS_KEY"),
        ({"awsSecretAccessKey": "x"}, "no key AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "minio:9000"}, "not a URL"),
        ({"AWS_CA_BUNDLE": "garbage"}, "neither PEM"),
    ],
)
def test_a_secret_that_cannot_work_is_told_before_anything_is_asked(
    keys: dict[str, str], part: str, tmp_path: Path, permanent: Callable[..., Any]
) -> None:
    held = Credentials("fraud-store", tuple(keys.items()), tmp_path)
    with permanent("Secret fraud-store", part):
        open_store(parse_uri(URI), held, expected=None)


def test_kserve_spellings_of_the_keys_are_understood() -> None:
    keys = (("awsAccessKeyID", "id"), ("awsSecretAccessKey", "secret"))
    held = Credentials("x", keys).s3()
    assert (held.access_key, held.secret_key) == ("id", "secret")


def page(keys: dict[str, str], more: str = "") -> dict[str, Any]:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>{len(body)}</Size><ETag>&quot;v1&quot;</ETag></Contents>"
        for key, body in keys.items()
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    truncated = "true" if more else "false"
    return {
        "status": 200,
        "body": f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{entries}"
        "</ListBucketResult>".encode(),
    }


def tree(web: Loopback, keys: dict[str, str]) -> None:
    for key, body in keys.items():
        web.put(f"/models/{key}", body.encode())


def test_a_long_listing_is_read_page_by_page(web: Loopback, get: Get, tmp_path: Path) -> None:
    first, second = {"p/a": "1", "p/dir/": ""}, {"p/dir/b": "22"}
    tree(web, first | second)
    web.script("/models", page(first, "next"), page(second), page(first, "next"), page(second))
    found = get("s3://models/p/")
    assert (found.files, found.size) == (2, 3)
    assert (tmp_path / "models" / "dir" / "b").read_text() == "22"
    assert "continuation-token=next" in web.asked[1].path


def test_a_listing_that_names_the_same_next_page_over_and_over_is_told(
    web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    web.always["/models"] = page({}, "next")
    with permanent("listing does not end", "check the endpoint"):
        get("s3://models/p/")
    assert len(web.asked) == 2


@pytest.mark.parametrize("key", ["p/../../etc/passwd", "p//x", "p/.partial/x", "p/a\\b"])
def test_a_key_that_is_no_plain_path_is_refused(
    web: Loopback, get: Get, key: str, permanent: Callable[..., Any]
) -> None:
    web.always["/models"] = page({"p/a": "1", key: "2"})
    with permanent("s3://models/p/ contains", "is refused"):
        get("s3://models/p/")


def test_keys_that_cannot_both_be_files_are_refused(
    web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    web.always["/models"] = page({"p/a": "1", "p/a/b": "2"})
    with permanent("may become the same file"):
        get("s3://models/p/")


def test_an_upload_in_progress_is_noticed_and_read_again(
    web: Loopback, get: Get, bench: Workbench
) -> None:
    tree(web, {"p/a": "1", "p/b": "2"})
    early, late = page({"p/a": "1"}), page({"p/a": "1", "p/b": "2"})
    web.script("/models", early, late, late, late)
    assert get("s3://models/p/").files == 2
    assert any("changed while they were read" in line for line in bench.lines)


def test_an_upload_without_end_is_given_up(
    web: Loopback, get: Get, transient: Callable[..., Any]
) -> None:
    tree(web, {f"p/{n}": "1" for n in range(20)})
    web.script("/models", *(page({f"p/{n}": "1"}) for n in range(20)))
    with transient("keeps changing", "wait for the upload"):
        get("s3://models/p/")


def test_one_failing_file_of_a_tree_fails_the_whole_and_shows_none_of_it(
    web: Loopback, get: Get, tmp_path: Path, permanent: Callable[..., Any]
) -> None:
    keys = {f"p/{n}": "x" * 1000 for n in range(12)}
    tree(web, keys)
    web.always["/models"] = page(keys)
    web.always["/models/p/7"] = error(403, "AccessDenied")
    with permanent("is denied"):
        get("s3://models/p/")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".partial"]


def test_a_final_failure_wakes_those_who_wait_to_try_again(
    web: Loopback, tmp_path: Path, permanent: Callable[..., Any]
) -> None:
    keys = {"p/bad": "x", "p/slow": "x"}
    tree(web, keys)
    web.always["/models"] = page(keys)
    web.always["/models/p/slow"] = error(503, "SlowDown")
    web.always["/models/p/bad"] = error(403, "AccessDenied")
    held = Credentials("", (("AWS_ENDPOINT_URL", web.url),))
    # The real clock, with waits that the test would not survive.
    policy = RetryPolicy(first_delay=60, max_delay=600, without_progress=3600)
    patience = Patience(policy=policy, dice=lambda: 0.0)
    before = patience.clock.now()
    with permanent("is denied"):
        fetch(Request("s3://models/p/", tmp_path / "m"), Run(patience=patience, credentials=held))
    assert patience.clock.now() - before < 20


def test_no_message_ever_holds_a_secret(
    web: Loopback, bench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mooring_fetcher.cli import main

    folder = tmp_path / "secret"
    folder.mkdir()
    for key, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": web.url,
    }.items():
        (folder / key).write_text(value)
    web.always[PATH] = error(403, f"Echo-{SECRET_KEY}-AKIDEXAMPLE")
    log = tmp_path / "log"
    arguments = ["fetch", "--uri", URI, "--target", str(tmp_path / "m")]
    arguments += ["--credentials-dir", str(folder), "--termination-log", str(log)]
    assert main(arguments) == 3
    captured = capsys.readouterr()
    for text in (captured.out, captured.err, log.read_text()):
        assert SECRET_KEY not in text
        assert "AKIDEXAMPLE" not in text
    assert "Echo-***-***" in log.read_text()
    assert json.dumps(log.read_text()).count("\\n") == 0
