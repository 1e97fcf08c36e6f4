"""Google's and Microsoft's tokens, bought from a stand-in for their authorities, and what either
says when it gives none. The signature of the JWT is verified with the account's public key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.fetch import Request, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

OBJECT = "/storage/v1/b/models/o/model.onnx"
META = json.dumps({"name": "model.onnx", "size": "4", "generation": "17"}).encode()
BLOB = "/container/model.onnx"
PRINCIPAL = {
    "AZURE_TENANT_ID": "tenant",
    "AZURE_CLIENT_ID": "client",
    "AZURE_CLIENT_SECRET": "never-print-me",
    "AZURE_STORAGE_ACCOUNT": "account",
}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_file(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, token_uri: str) -> str:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "fetch@project.iam.gserviceaccount.com",
            "private_key_id": "k1",
            "private_key": pem.decode(),
            "token_uri": token_uri,
        }
    )


Get = Callable[..., Any]


@pytest.fixture
def get(
    secure_web: Loopback, authority: tuple[Path, Path], bench: Workbench, tmp_path: Path
) -> Get:
    """Fetches with a Secret that trusts the stand-in."""

    def run(uri: str, **keys: str) -> Any:
        (tmp_path / "ca.crt").write_bytes(authority[0].read_bytes())
        held = {"ca.crt": authority[0].read_text(), **keys}
        one = bench.run()
        object.__setattr__(
            one, "credentials", Credentials("fraud-store", tuple(held.items()), tmp_path)
        )
        return fetch(Request(uri, tmp_path / "models"), one)

    return run


def part(encoded: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(encoded + "=="))


def test_a_service_account_signs_for_a_token_and_reads_with_it(
    secure_web: Loopback, get: Get, key: rsa.RSAPrivateKey
) -> None:
    token = json.dumps({"access_token": "ya29.t", "expires_in": 3599}).encode()
    url = secure_web.put("/token", token)
    secure_web.put(OBJECT, META, etag=None)
    secure_web.script(OBJECT, {}, {"status": 200, "body": b"abcd"})
    keys = {"gcloud-application-credentials.json": key_file(key, url)}
    assert get("gs://models/model.onnx", GCS_ENDPOINT_URL=secure_web.url, **keys).size == 4

    bought, *used = secure_web.asked
    form = parse_qs(bought.body.decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    header, claims, signature = form["assertion"][0].split(".")
    key.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        f"{header}.{claims}".encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    assert part(header) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    said = part(claims)
    assert said["iss"] == "fetch@project.iam.gserviceaccount.com"
    assert said["aud"] == url
    assert said["scope"].endswith("devstorage.read_only")
    assert said["exp"] - said["iat"] == 3600
    # One token serves the whole run.
    assert [asked.headers["Authorization"] for asked in used] == ["Bearer ya29.t"] * 2
    assert used[1].headers["Accept-Encoding"] == "gzip"


def test_a_key_that_google_does_not_know_is_told(
    secure_web: Loopback, get: Get, key: rsa.RSAPrivateKey, permanent: Callable[..., Any]
) -> None:
    said = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    secure_web.script("/token", {"status": 400, "body": json.dumps(said).encode()})
    keys = {"gcloud-application-credentials.json": key_file(key, f"{secure_web.url}/token")}
    with permanent(
        "no token for the service account fetch@", "invalid_grant", "Secret fraud-store"
    ):
        get("gs://models/model.onnx", GCS_ENDPOINT_URL=secure_web.url, **keys)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not the JSON key file of a service account"),
        ('{"type": "service_account"}', "not the JSON key file of a service account"),
        ('{"type": "external_account"}', "only service_account is understood"),
    ],
)
def test_what_is_no_service_account_is_told(
    get: Get, permanent: Callable[..., Any], text: str, part: str
) -> None:
    with permanent("Secret fraud-store", part):
        get("gs://models/model.onnx", **{"gcloud-application-credentials.json": text})


def test_a_private_key_of_another_kind_is_told(
    secure_web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    other = key_file(ec.generate_private_key(ec.SECP256R1()), f"{secure_web.url}/token")
    with permanent("no RSA key in PEM"):
        get(
            "gs://models/model.onnx",
            GCS_ENDPOINT_URL=secure_web.url,
            **{"gcloud-application-credentials.json": other},
        )


@pytest.mark.parametrize(
    ("status", "said", "parts"),
    [
        (403, "fetch@project does not have storage.objects.get access", ["does not have storage"]),
        (401, "Anonymous caller does not have access", ["objectViewer"]),
        (404, "The specified bucket does not exist.", ["bucket models does not exist"]),
        (400, "Bad", ["answered 400", "Bad"]),
    ],
)
def test_an_answer_of_google_becomes_a_sentence(
    secure_web: Loopback,
    get: Get,
    permanent: Callable[..., Any],
    status: int,
    said: str,
    parts: list[str],
) -> None:
    body = json.dumps({"error": {"code": status, "message": said}}).encode()
    for path in (OBJECT, "/storage/v1/b/models/o"):
        secure_web.always[path] = {"status": status, "body": body}
    with permanent(*parts):
        get("gs://models/model.onnx", GCS_ENDPOINT_URL=secure_web.url, token="ya29.t")


def test_a_service_principal_buys_a_token_and_reads_with_it(secure_web: Loopback, get: Get) -> None:
    bought = "/tenant/oauth2/v2.0/token"
    secure_web.put(bought, json.dumps({"access_token": "eyJ", "expires_in": 3599}).encode())
    listing = (
        "<EnumerationResults><Blobs><Blob><Name>v1/model.onnx</Name><Properties>"
        "<Etag>0x8D</Etag><Content-Length>4</Content-Length></Properties></Blob></Blobs>"
        "<NextMarker/></EnumerationResults>"
    )
    secure_web.put("/container", listing.encode(), etag=None)
    secure_web.put("/container/v1/model.onnx", b"abcd", etag='"0x8D"')
    keys = PRINCIPAL | {
        "AZURE_AUTHORITY_HOST": secure_web.url,
        "AZURE_STORAGE_BLOB_ENDPOINT": secure_web.url,
    }
    assert get("abfs://container/v1/", **keys).files == 1
    form = parse_qs(secure_web.asked[0].body.decode())
    assert form["scope"] == ["https://storage.azure.com/.default"]
    assert form["client_id"] == ["client"]
    assert {asked.headers["Authorization"] for asked in secure_web.asked[1:]} == {"Bearer eyJ"}
    assert all(asked.headers["x-ms-version"] for asked in secure_web.asked[1:])


def test_a_wrong_client_secret_is_told_and_not_printed(
    secure_web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    said = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid secret.\nTrace"}
    path = "/tenant/oauth2/v2.0/token"
    secure_web.script(path, {"status": 401, "body": json.dumps(said).encode()})
    keys = PRINCIPAL | {"AZURE_AUTHORITY_HOST": secure_web.url}
    with permanent("no token for the service principal of Secret fraud-store", "AADSTS7000215"):
        get("az://container/v1/", **keys)


@pytest.mark.parametrize(
    ("uri", "keys", "part"),
    [
        ("az://container/x", {}, "names no storage account"),
        ("az://container@one12/x", {"AZURE_STORAGE_ACCOUNT": "two"}, "make them agree"),
        ("az://container@one12/x", {"AZURE_STORAGE_KEY": "!"}, "not base64"),
        ("az://container@one12/x", {"AZURE_STORAGE_SAS_TOKEN": "sp=r"}, "without a signature"),
        ("az://container@one12/x", {"AZURE_CLIENT_SECRET": "x1x1"}, "needs all three"),
        (
            "az://container@one12/x",
            {"AZURE_STORAGE_SAS_TOKEN": "sig=1", "AZURE_STORAGE_BLOB_ENDPOINT": "http://far"},
            "plain http",
        ),
        ("az://container@one12/x", {"AZURE_STORAGE_BLOB_ENDPOINT": "far"}, "not a URL"),
        ("gs://models/x", {"GCS_ENDPOINT_URL": "http://far", "token": "ya29"}, "plain http"),
    ],
)
def test_a_secret_that_cannot_work_is_told_before_anything_is_sent(
    get: Get,
    secure_web: Loopback,
    permanent: Callable[..., Any],
    uri: str,
    keys: dict[str, str],
    part: str,
) -> None:
    with permanent(part):
        get(uri, **keys)
    assert secure_web.asked == []
