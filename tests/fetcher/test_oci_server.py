"""Fetching from a real registry: the distribution project's, with each kind of door it can have."""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.fetcher.registry_client import (
    INDEX,
    LAYER,
    Pusher,
    TokenService,
    basic,
    digest_of,
    docker_config,
    tar,
)

from mooring_dev.stores import Registry, registry_server
from mooring_fetcher.cli import main
from mooring_fetcher.fetch import Request, digest_uri, fetch
from mooring_fetcher.limits import Limits

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench

pytestmark = pytest.mark.stores

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
#: bcrypt of registry-pass, as htpasswd makes it.
HTPASSWD = "reader:$2b$05$abcdefghijklmnopqrstuuPjvWZA9Te8qmmwSCy0c40HUw16Nv/I6\n"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
Get = Callable[..., Any]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for user and password."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = f"  htpasswd: {{realm: models, path: '{folder / 'htpasswd'}'}}"
    with registry_server(folder, auth) as server:
        yield server


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenService]:
    service = TokenService(tmp_path_factory.mktemp("tokens"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def bearer(tmp_path_factory: pytest.TempPathFactory, tokens: TokenService) -> Iterator[Registry]:
    """A registry that sends for tokens."""
    with registry_server(tmp_path_factory.mktemp("bearer"), tokens.configuration) as server:
        yield server


@pytest.fixture
def push(registry: Registry, request: pytest.FixtureRequest) -> Pusher:
    """A repository of this test's own."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    return Pusher(registry.host, f"models/{name}")


@pytest.fixture
def get(bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, **request: Any) -> Any:
        secret = request.pop("secret", None)
        limits = request.pop("limits", None)
        wanted = Request(uri, tmp_path / "models", **request)
        return fetch(wanted, bench.run(secret=secret, limits=limits))

    return run


def placed(folder: Path) -> dict[str, bytes]:
    """The model's files by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file())
    held = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {path: body for path, body in held.items() if not path.startswith(".")}


def test_an_artifacts_files_land_under_their_titles_and_its_digest_is_the_manifests(
    push: Pusher, get: Get, tmp_path: Path
) -> None:
    tree = {"config.json": b"{}", "onnx/model.onnx": BODY}
    digest = push.artifact(tree, "v7")
    found = get(push.uri(":v7"))
    assert (found.digest, found.files) == (digest, 2)
    assert placed(tmp_path / "models") == tree


def test_the_digest_needs_no_download(push: Pusher, bench: Workbench, registry: Registry) -> None:
    digest = push.artifact({"model.onnx": BODY}, "v7")
    registry.blob(digest_of(BODY)).unlink()
    assert digest_uri(push.uri(":v7"), bench.run()).digest == digest


def test_a_lone_archive_is_unpacked(push: Pusher, get: Get, tmp_path: Path) -> None:
    push.artifact({"model.tar.gz": tar({"a/model.onnx": b"x"})}, "v7")
    get(push.uri(":v7"))
    assert placed(tmp_path / "models") == {"a/model.onnx": b"x"}


def test_a_folder_that_oras_packed_is_unpacked(push: Pusher, get: Get, tmp_path: Path) -> None:
    packed = tar({"onnx": None, "onnx/model.onnx": b"x"})
    folder = push.titled("onnx", packed, **{"io.deis.oras.content.unpack": "true"})
    folder["mediaType"] = f"{LAYER}+gzip"
    push.layers([folder, push.titled("config.json", b"{}")], "v7")
    get(push.uri(":v7"))
    assert placed(tmp_path / "models") == {"onnx/model.onnx": b"x", "config.json": b"{}"}


def test_an_images_layers_cover_and_hide_each_other(push: Pusher, get: Get, tmp_path: Path) -> None:
    first = tar({"models/a": b"old", "models/gone": b"x", "models/sub/one": b"x"})
    second = tar({"models/a": b"new", "models/.wh.gone": b"", "models/sub/.wh..wh..opq": b""})
    digest = push.image([first, tar({"empty": None}), second], "v7")
    assert get(push.uri(":v7")).digest == digest
    assert placed(tmp_path / "models") == {"models/a": b"new"}


def test_layers_need_not_be_compressed_nor_different(
    push: Pusher, get: Get, tmp_path: Path
) -> None:
    layer = tar({"model.onnx": BODY}, gzipped=False)
    push.image([layer, layer], "v7", how="")
    get(push.uri(":v7"))
    assert placed(tmp_path / "models") == {"model.onnx": BODY}


@pytest.mark.parametrize("reference", [":v7@{digest}", "@{digest}"])
def test_a_digest_in_the_uri_is_what_is_fetched_wherever_the_tag_is(
    push: Pusher, get: Get, tmp_path: Path, reference: str
) -> None:
    digest = push.artifact({"model.onnx": b"old"}, "v7")
    push.artifact({"model.onnx": b"new"}, "v7")
    assert get(push.uri(reference.format(digest=digest))).digest == digest
    assert placed(tmp_path / "models") == {"model.onnx": b"old"}


def test_a_pinned_revision_is_fetched_after_its_tag_has_moved(
    push: Pusher, get: Get, tmp_path: Path
) -> None:
    digest = push.artifact({"model.onnx": b"old"}, "v7")
    push.artifact({"model.onnx": b"new"}, "v7")
    assert get(push.uri(":v7"), pinned=digest).digest == digest
    assert placed(tmp_path / "models") == {"model.onnx": b"old"}


def test_two_digests_that_differ_are_told(
    push: Pusher, get: Get, permanent: Callable[..., Any]
) -> None:
    digest = push.artifact({"model.onnx": b"x"}, "v7")
    with permanent("names another digest", "make them agree"):
        get(push.uri(f"@{digest}"), declared=digest_of(b"other"))


def entry(digest: str, size: int = 1, **platform: str) -> dict[str, Any]:
    """One manifest of an index; the registry wants its size, and nobody checks it."""
    held = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest}
    return held | {"size": size} | ({"platform": platform} if platform else {})


def test_of_an_index_this_machines_entry_is_fetched_and_the_index_is_the_digest(
    push: Pusher, get: Get, tmp_path: Path
) -> None:
    ours = push.artifact({"model.onnx": b"ours"}, "")
    other = push.artifact({"model.onnx": b"other"}, "")
    manifests = [
        entry(other, os="linux", architecture="riscv64"),
        entry(ours, os="linux", architecture=MACHINE),
        entry(other, os="unknown", architecture="unknown"),
    ]
    digest = push.manifest({"manifests": manifests}, "v7", INDEX)
    assert get(push.uri(":v7")).digest == digest
    assert placed(tmp_path / "models") == {"model.onnx": b"ours"}


def test_a_lone_entry_of_an_index_is_for_every_platform(
    push: Pusher, get: Get, tmp_path: Path
) -> None:
    lone = entry(push.artifact({"model.onnx": b"x"}, ""))
    push.manifest({"manifests": [lone]}, "v7", INDEX)
    get(push.uri(":v7"))
    assert placed(tmp_path / "models") == {"model.onnx": b"x"}


def test_an_index_without_this_platform_is_told(
    push: Pusher, get: Get, permanent: Callable[..., Any]
) -> None:
    other = push.artifact({"model.onnx": b"x"}, "")
    both = [entry(other, os="linux", architecture=name) for name in ("riscv64", "mips")]
    push.manifest({"manifests": both}, "v7", INDEX)
    with permanent("index of 2 manifests", f"linux/{MACHINE}"):
        get(push.uri(":v7"))


def test_half_a_layer_goes_on_where_it_broke(
    push: Pusher, get: Get, registry: Registry, cutting: Callable[[str], Cutter]
) -> None:
    digest = push.artifact({"model.onnx": BODY}, "v7")
    relay = cutting(f"http://{registry.host}")
    relay.cuts = [2 << 20]
    uri = push.uri(":v7").replace(registry.host, relay.endpoint.removeprefix("http://"))
    assert get(uri).digest == digest
    assert relay.relayed < len(BODY) + (1 << 20)


def test_a_pod_that_starts_over_goes_on_with_half_a_layer(
    push: Pusher, get: Get, registry: Registry, cutting: Callable[[str], Cutter],
    transient: Callable[..., Any],
) -> None:  # fmt: skip
    digest = push.artifact({"model.onnx": BODY}, "v7")
    relay = cutting(f"http://{registry.host}")
    relay.cuts = [2 << 20] + [0] * 100
    uri = push.uri(":v7").replace(registry.host, relay.endpoint.removeprefix("http://"))
    with transient("gave up", "the pod will start over"):
        get(uri)
    relay.cuts.clear()
    assert get(uri).digest == digest
    assert relay.relayed < len(BODY) + (1 << 20)


def test_half_a_layer_in_the_registry_is_told(
    push: Pusher, get: Get, registry: Registry, permanent: Callable[..., Any]
) -> None:
    push.artifact({"model.onnx": BODY}, "v7")
    blob = registry.blob(digest_of(BODY))
    blob.write_bytes(BODY[: 1 << 20])
    try:
        with permanent(
            f"holds {1 << 20} bytes of the layer {digest_of(BODY)}", str(len(BODY)), "cut short"
        ):
            get(push.uri(":v7"))
    finally:
        blob.write_bytes(BODY)


def test_a_layer_that_is_not_what_its_digest_says_is_told(
    push: Pusher, get: Get, registry: Registry, permanent: Callable[..., Any], tmp_path: Path
) -> None:
    body = BODY[::-1]
    push.artifact({"model.onnx": body}, "v7")
    registry.blob(digest_of(body)).write_bytes(bytes(len(body)))
    with permanent("'model.onnx' has the sha256", "twice", "damaged"):
        get(push.uri(":v7"))
    assert placed(tmp_path / "models") == {}


def test_a_manifest_that_is_not_what_its_digest_says_is_told(
    push: Pusher, get: Get, registry: Registry, permanent: Callable[..., Any]
) -> None:
    digest = push.artifact({"model.onnx": b"y"}, "v7")
    blob = registry.blob(digest)
    blob.write_bytes(blob.read_bytes().replace(b'"schemaVersion"', b' "schemaVersion"'))
    with permanent(digest, "sent a manifest with the digest", "damaged"):
        get(push.uri(f"@{digest}"))


def test_a_layer_that_is_gone_is_told(
    push: Pusher, get: Get, registry: Registry, permanent: Callable[..., Any]
) -> None:
    push.artifact({"model.onnx": b"this is gone"}, "v7")
    registry.blob(digest_of(b"this is gone")).unlink()
    with permanent("names the layer", "does not hold", "BLOB_UNKNOWN"):
        get(push.uri(":v7"))


def test_a_manifest_that_is_not_there_is_told(
    push: Pusher, get: Get, permanent: Callable[..., Any]
) -> None:
    push.artifact({"model.onnx": b"x"}, "v7")
    with permanent("has no v8 in the repository models/", "MANIFEST_UNKNOWN"):
        get(push.uri(":v8"))


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (f"{LAYER}+zstd", ["+zstd", "only tar and tar+gzip"]),
        ("application/x-weights", ["application/x-weights", "oras push"]),
    ],
)
def test_a_layer_of_another_kind_is_told(
    push: Pusher, get: Get, permanent: Callable[..., Any], kind: str, parts: list[str]
) -> None:
    push.layers([push.layer(b"x", kind)], "v7")
    with permanent(*parts):
        get(push.uri(":v7"))


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"../../etc/x": b"x"}, "climbs out"),
        ({"a": b"x", "A": b"y"}, "letter case"),
        ({f"{index}": b"" for index in range(20)}, "more than 10 files"),
    ],
)
def test_a_layer_may_do_no_more_than_an_archive(
    push: Pusher,
    get: Get,
    permanent: Callable[..., Any],
    tmp_path: Path,
    files: dict[str, bytes],
    part: str,
) -> None:
    push.image([tar(dict(files))], "v7")
    with permanent(part):
        get(push.uri(":v7"), limits=Limits(max_files=10))
    assert placed(tmp_path / "models") == {}


def test_a_title_may_do_no_more_than_a_name_in_a_store(
    push: Pusher, get: Get, permanent: Callable[..., Any]
) -> None:
    push.artifact({"../x": b"x", "y": b"y"}, "v7")
    with permanent("climbs out"):
        get(push.uri(":v7"))


def test_a_registry_that_wants_a_password_is_told_and_takes_the_right_one(
    guarded: Registry, get: Get, permanent: Callable[..., Any]
) -> None:
    push = Pusher(guarded.host, "models/fraud", basic("reader", "registry-pass"))
    digest = push.artifact({"model.onnx": b"x"}, "v7")
    with permanent("does not let this pod", "pull models/fraud", "401", "dockerconfigjson"):
        get(push.uri(":v7"))
    wrong = docker_config(guarded.host, username="reader", password="wrong")
    with permanent("does not let Secret fraud-store", "401"):
        get(push.uri(":v7"), secret=wrong)
    auth = base64.b64encode(b"reader:registry-pass").decode()
    assert get(push.uri(":v7"), secret=docker_config(guarded.host, auth=auth)).digest == digest


def last_word(uri: str, folder: Path, log: Path) -> int:
    """Runs the container's program; returns its exit code."""
    log.touch()
    target = str(folder / "models")
    return main(["fetch", "--uri", uri, "--target", target, "--termination-log", str(log)])


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (":v7", "does not let this pod (no credentials for it) pull models/fraud"),
        ("@sha256:12", "does not name an image or artifact"),
    ],
)
def test_the_last_word_of_the_container_is_the_sentence_and_starting_over_is_in_vain(
    guarded: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], reference: str, said: str
) -> None:
    log = tmp_path / "termination-log"
    uri = f"oci://{guarded.host}/models/fraud{reference}"
    assert last_word(uri, tmp_path, log) == 3
    assert said in log.read_text()
    assert capsys.readouterr().err == log.read_text() + "\n"


def test_half_a_layer_in_the_registry_is_the_containers_last_word(
    push: Pusher, registry: Registry, tmp_path: Path
) -> None:
    body = BODY[7:]
    push.artifact({"model.onnx": body}, "v7")
    registry.blob(digest_of(body)).write_bytes(body[:1000])
    log = tmp_path / "termination-log"
    assert last_word(push.uri(":v7"), tmp_path, log) == 3
    assert f"holds 1000 bytes of the layer {digest_of(body)}" in log.read_text()


def test_an_entry_for_another_registry_is_not_sent(
    guarded: Registry, get: Get, permanent: Callable[..., Any]
) -> None:
    other = docker_config("registry.example", username="reader", password="registry-pass")
    with permanent("does not let this pod (no credentials for it)"):
        get(f"oci://{guarded.host}/models/fraud:v7", secret=other)


def test_a_public_repository_is_pulled_by_an_anonymous_token(
    bearer: Registry, tokens: TokenService, get: Get
) -> None:
    name = "public/models"
    writer = "Bearer " + tokens.token(f"repository:{name}:push", basic(*tokens.writer))
    digest = Pusher(bearer.host, name, writer).artifact({"a": b"1", "b": b"2", "c": b"3"}, "v7")
    before = len(tokens.asked)
    assert get(f"oci://{bearer.host}/{name}:v7").digest == digest
    assert len(tokens.asked) == before + 1


@pytest.mark.parametrize("how", ["password", "identitytoken"])
def test_a_private_repository_is_pulled_by_a_token_that_the_secret_buys(
    bearer: Registry, tokens: TokenService, get: Get, permanent: Callable[..., Any], how: str
) -> None:
    name = "private/models"
    writer = "Bearer " + tokens.token(f"repository:{name}:push", basic(*tokens.writer))
    push = Pusher(bearer.host, name, writer)
    digest = push.artifact({"model.onnx": b"x"}, "v7")
    with permanent("does not let this pod", "pull private/models", "401"):
        get(push.uri(":v7"))
    user, password = tokens.reader
    with permanent("gives Secret fraud-store none for private/models", "401"):
        get(push.uri(":v7"), secret=docker_config(bearer.host, username=user, password="wrong"))
    right = {"username": user, "password": password}
    if how == "identitytoken":
        right = {"identitytoken": tokens.identity}
    assert get(push.uri(":v7"), secret=docker_config(bearer.host, **right)).digest == digest
