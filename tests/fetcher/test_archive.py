"""What an archive may do: put plain files into the model's folder, and nothing else."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mooring_fetcher.archive import Unpacked, unpack
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.limits import Limits

Kind = Literal["tar", "tar.gz", "zip"]
TIGHT = Limits(max_bytes=1 << 20, max_files=100, max_ratio=50)


class Bench:
    """Unpacks bytes and shows what came out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def unpack(self, data: bytes, kind: Kind, limits: Limits = TIGHT) -> Unpacked:
        archive, flat = self.folder / "archive", self.folder / "flat"
        archive.write_bytes(data)
        shutil.rmtree(flat, ignore_errors=True)
        flat.mkdir()
        try:
            return unpack(archive, kind, "s3://models/m", flat, limits)
        finally:
            # Whatever an archive says, only numbered files in the one flat folder come of it.
            assert all(path.name.isdecimal() and path.is_file() for path in flat.iterdir())
            assert {path.name for path in self.folder.iterdir()} == {"archive", "flat"}

    def contents(self, data: bytes, kind: Kind, limits: Limits = TIGHT) -> dict[str, bytes]:
        unpacked = self.unpack(data, kind, limits)
        return {path: source.read_bytes() for path, source in unpacked.sources.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


Entry = tuple[str, bytes] | tarfile.TarInfo


def tar(*entries: Entry, end: bool = True) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry, io.BytesIO(b"\0" * entry.size))
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
        size = archive.offset
    return out.getvalue() if end else out.getvalue()[:size]


def special(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def zipped(
    entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return out.getvalue()


GOOD = {"model.onnx": b"weights", "vocab/words.txt": b"a\nb\n", "empty": b""}


def pack(files: dict[str, bytes], kind: Kind) -> bytes:
    if kind == "zip":
        return zipped(files.items())
    data = tar(*files.items())
    return gzip.compress(data) if kind == "tar.gz" else data


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_plain_files_come_out_as_they_went_in(bench: Bench, kind: Kind) -> None:
    assert bench.contents(pack(GOOD, kind), kind) == GOOD


def test_a_tar_of_a_folder_by_name_dot_is_plain(bench: Bench) -> None:
    data = tar(special(".", tarfile.DIRTYPE), special("./a", tarfile.DIRTYPE), ("./a/x", b"1"))
    assert bench.contents(data, "tar") == {"a/x": b"1"}


def test_many_empty_files_pass(bench: Bench) -> None:
    # After an empty file tarfile steps back one byte; that must work on a stream.
    files = {f"empty{n}": b"" for n in range(40)} | {"last": b"x" * 513}
    assert bench.contents(pack(files, "tar.gz"), "tar.gz") == files


def test_long_names_of_every_tar_dialect_pass(bench: Bench) -> None:
    name = "d" * 200 + "/" + "f" * 100
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=dialect) as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        assert bench.contents(out.getvalue(), "tar") == {name: b"abc"}


CLIMBING = [
    "../evil",
    "a/../../evil",
    "/etc/passwd",
    "//etc/passwd",
    "a//b",
    "a/./b",
    "..",
    "a\\..\\b",
    "new\nline",
    "bell\x07",
    "hidden\u202egnp.exe",
    "x" * 300,
    "/".join(["d"] * 600),
    ".partial/x",
    ".mooring-fetch.json",
    ".//../evil",
]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("name", CLIMBING)
def test_a_name_that_is_not_plain_is_refused(
    bench: Bench, kind: Kind, name: str, permanent: Callable[..., Any]
) -> None:
    with permanent("s3://models/m contains", "is refused"):
        bench.unpack(pack({"model.onnx": b"x", name: b"evil"}, kind), kind)


def test_a_name_that_is_not_utf8_is_refused(bench: Bench, permanent: Callable[..., Any]) -> None:
    with permanent("not UTF-8"):
        bench.unpack(tar(("a\udcff", b"x")), "tar")


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.onnx", "MODEL.onnx"),
        ("dir/a", "DIR/b"),
        ("stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/b", "a"),
    ],
)
def test_two_names_that_may_be_one_file_are_refused(
    bench: Bench, kind: Kind, first: str, second: str, permanent: Callable[..., Any]
) -> None:
    with permanent("may become the same file"):
        bench.unpack(pack({first: b"reviewed", second: b"served"}, kind), kind)


def test_the_same_name_twice_is_refused(bench: Bench, permanent: Callable[..., Any]) -> None:
    with permanent("twice"):
        bench.unpack(tar(("m", b"reviewed"), ("m", b"served")), "tar")
    with permanent("twice"), pytest.warns(UserWarning, match="Duplicate name"):
        bench.unpack(zipped([("m", b"reviewed"), ("m", b"served")]), "zip")


def test_a_link_to_a_file_inside_is_that_file(bench: Bench) -> None:
    data = tar(
        special("snapshot/model.onnx", tarfile.SYMTYPE, "../blobs/abc"),
        ("blobs/abc", b"weights"),
        special("again", tarfile.LNKTYPE, "blobs/abc"),
    )
    unpacked = bench.unpack(data, "tar")
    assert {file.path: file.size for file in unpacked.files} == {
        "blobs/abc": 7,
        "snapshot/model.onnx": 7,
        "again": 7,
    }
    assert len(set(unpacked.sources.values())) == 1


@pytest.mark.parametrize(
    "links",
    [
        [("evil", tarfile.SYMTYPE, "/etc/passwd")],
        [("evil", tarfile.SYMTYPE, "../../etc/passwd")],
        [("a/evil", tarfile.SYMTYPE, "../../x")],
        [("evil", tarfile.LNKTYPE, "/etc/passwd")],
        [("evil", tarfile.LNKTYPE, "../x")],
        [("evil", tarfile.SYMTYPE, "")],
        [("evil", tarfile.SYMTYPE, "missing")],
        [("folder", tarfile.SYMTYPE, ".")],
        [("one", tarfile.SYMTYPE, "two"), ("two", tarfile.SYMTYPE, "one")],
        [("d", tarfile.SYMTYPE, "."), ("d2", tarfile.SYMTYPE, "d/../x")],
    ],
)
def test_any_other_link_is_refused(
    bench: Bench, links: list[tuple[str, bytes, str]], permanent: Callable[..., Any]
) -> None:
    entries = [special(name, kind, target) for name, kind, target in links]
    with permanent("the link"):
        bench.unpack(tar(("dir/file", b"x"), *entries), "tar")


def test_nothing_is_ever_written_through_a_link(
    bench: Bench, permanent: Callable[..., Any]
) -> None:
    with permanent("the link"):
        bench.unpack(tar(special("d", tarfile.SYMTYPE, "/tmp"), ("d/of-a-test", b"x")), "tar")
    assert not Path("/tmp/of-a-test").exists()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "unknown type"),
    ],
)
def test_devices_pipes_and_unknown_types_are_refused(
    bench: Bench, kind: bytes, word: str, permanent: Callable[..., Any]
) -> None:
    with permanent(word, "is refused"):
        bench.unpack(tar(("ok", b"x"), special("evil", kind)), "tar")


def test_a_link_or_device_in_a_zip_is_refused(bench: Bench, permanent: Callable[..., Any]) -> None:
    for mode, word in ((0o120777, "a link"), (0o020666, "neither a file nor a folder")):
        info = zipfile.ZipInfo("evil")
        info.external_attr = mode << 16
        with permanent(word):
            bench.unpack(zipped([(info, b"/etc/passwd")]), "zip")


def test_encrypted_or_exotically_packed_zips_are_refused(
    bench: Bench, permanent: Callable[..., Any]
) -> None:
    data = bytearray(zipped([("m", b"x")]))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    with permanent("encrypted"):
        bench.unpack(bytes(data), "zip")
    with permanent("store and deflate"):
        bench.unpack(zipped([("m", b"x")], zipfile.ZIP_LZMA), "zip")


def test_a_sparse_file_is_refused(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, permanent: Callable[..., Any]
) -> None:
    header = tarfile.TarInfo("holes")
    header.size = 512
    header.pax_headers = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(1 << 40)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(header, io.BytesIO(b"\0" * 512))
    with permanent("sparse"):
        bench.unpack(out.getvalue(), "tar")


# --- bombs ----------------------------------------------------------------------------------


def test_a_gzip_bomb_is_stopped_by_its_ratio(bench: Bench, permanent: Callable[..., Any]) -> None:
    data = gzip.compress(tar(("zeros", b"\0" * (30 << 20))), 1)
    with permanent("times its size"):
        bench.unpack(data, "tar.gz", Limits(max_ratio=50))


def test_a_zip_bomb_is_stopped_by_its_ratio(bench: Bench, permanent: Callable[..., Any]) -> None:
    data = zipped((f"zeros{n}", b"\0" * (4 << 20)) for n in range(6))
    with permanent("times its size"):
        bench.unpack(data, "zip", Limits(max_ratio=50))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_more_bytes_than_allowed_are_refused(
    bench: Bench, kind: Kind, permanent: Callable[..., Any]
) -> None:
    files = {f"f{n}": bytes([n]) * 1000 for n in range(5)}
    assert bench.contents(pack(files, kind), kind, Limits(max_bytes=5000)) == files
    with permanent("limit for one model"):
        bench.unpack(pack(files, kind), kind, Limits(max_bytes=4999))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_more_files_than_allowed_are_refused(
    bench: Bench, kind: Kind, permanent: Callable[..., Any]
) -> None:
    files = {f"f{n}": b"" for n in range(11)}
    with permanent("more than 10 files"):
        bench.unpack(pack(files, kind), kind, Limits(max_files=10))


def test_folders_count_as_entries(bench: Bench, permanent: Callable[..., Any]) -> None:
    folders = [special(f"d{n}", tarfile.DIRTYPE) for n in range(200)]
    with permanent("more than 100 files"):
        bench.unpack(tar(*folders), "tar")


def test_a_bomb_in_a_header_or_behind_the_end_is_stopped_in_bounded_memory(
    bench: Bench, permanent: Callable[..., Any]
) -> None:
    header = special("pax", tarfile.XHDTYPE, size=100 << 20)
    block = header.tobuf(format=tarfile.USTAR_FORMAT)
    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [squeeze.compress(block)] + [squeeze.compress(b"\0" * (1 << 20)) for _ in range(100)]
    data = b"".join(pieces) + squeeze.flush()
    tracemalloc.start()
    with permanent("a header of more than"):
        bench.unpack(data, "tar.gz", Limits(max_ratio=5000))
    behind = gzip.compress(tar(("m", b"x"))) + gzip.compress(b"\0" * (20 << 20), 1)
    with permanent("times its size"):
        bench.unpack(behind, "tar.gz", Limits(max_ratio=50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_zip_entries_that_share_their_bytes_are_refused(
    bench: Bench, permanent: Callable[..., Any]
) -> None:
    with permanent("shares its bytes"):
        bench.unpack(_overlapping(), "zip")


def _overlapping() -> bytes:
    """Two directory entries for one local header: the seed of the better zip bomb."""
    data = zipped([("a", b"x" * 100)])
    at = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    directory = data[at:end] * 2
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), at, 0)
    return data[:at] + directory + tail


def test_a_zip_whose_directory_is_a_bomb_is_refused_before_it_is_read(
    bench: Bench, permanent: Callable[..., Any]
) -> None:
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 65 << 20, 0, 0)
    archive, flat = bench.folder / "archive", bench.folder / "flat"
    with archive.open("wb") as out:
        out.truncate(66 << 20)
        out.seek(66 << 20)
        out.write(tail)
    flat.mkdir()
    with permanent("directory of more than 64 MiB"):
        unpack(archive, "zip", "s3://models/m", flat, Limits())
    liar = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 1 << 20, 0, 0)
    with permanent("larger than itself"):
        bench.unpack(liar, "zip")


def test_an_archive_inside_the_archive_stays_a_file(bench: Bench) -> None:
    inner = gzip.compress(tar(("zeros", b"\0" * (20 << 20))), 1)
    assert bench.contents(pack({"inner.tar.gz": inner}, "zip"), "zip") == {"inner.tar.gz": inner}


# --- damage ---------------------------------------------------------------------------------


def damaged_archives() -> list[tuple[str, bytes, Kind]]:
    plain, packed, folder = (pack(GOOD, kind) for kind in ("tar", "tar.gz", "zip"))
    stored = zipped([("words.txt", b"a\nb\n")], zipfile.ZIP_STORED)
    header = bytearray(tar(("a", b"x"), ("b", b"y")))
    header[1024 + 5] ^= 0xFF  # the second header's name: its checksum no longer holds
    return [
        ("cut tar", plain[:700], "tar"),
        ("tar cut between entries", tar(("a", b"x"), end=False), "tar"),
        ("damaged second header", bytes(header), "tar"),
        ("cut gzip", packed[:-20], "tar.gz"),
        ("gzip with a wrong checksum", packed[:-8] + b"\0" * 8, "tar.gz"),
        ("not gzip", b"<html>not found</html>", "tar.gz"),
        ("not tar", b"<html>not found</html>" * 100, "tar"),
        ("gzip of something else", gzip.compress(b"hello" * 500), "tar.gz"),
        ("empty", b"", "tar"),
        ("empty", b"", "tar.gz"),
        ("empty", b"", "zip"),
        ("cut zip", folder[:-30], "zip"),
        ("zip without its head", folder[40:], "zip"),
        ("not zip", b"<html>not found</html>", "zip"),
        ("zip with wrong bytes", stored.replace(b"a\nb\n", b"a\nc\n"), "zip"),
    ]


@pytest.mark.parametrize(
    ("data", "kind"), [pytest.param(d, k, id=f"{k}: {n}") for n, d, k in damaged_archives()]
)
def test_a_damaged_archive_is_called_damaged(
    bench: Bench, data: bytes, kind: Kind, permanent: Callable[..., Any]
) -> None:
    with permanent("s3://models/m is damaged or not the archive"):
        bench.unpack(data, kind)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_without_files_is_no_model(
    bench: Bench, kind: Kind, permanent: Callable[..., Any]
) -> None:
    data = {
        "tar": tar(special("d", tarfile.DIRTYPE)),
        "tar.gz": gzip.compress(tar(special("d", tarfile.DIRTYPE))),
        "zip": zipped([("d/", b"")]),
    }[kind]
    with permanent("holds no file"):
        bench.unpack(data, kind)


# --- whatever else --------------------------------------------------------------------------

NAMES = st.text(st.sampled_from("ab./\\\0é\u202e"), min_size=1, max_size=8) | st.text(
    min_size=1, max_size=8
)
TYPES = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
)
fuzz = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _survives(bench: Bench, data: bytes, kind: Kind) -> None:
    """The only outcomes are plain files in the flat folder, or one sentence."""
    try:
        unpacked = bench.unpack(data, kind)
    except PermanentFailure as failure:
        assert str(failure)  # noqa: PT017
        return
    for path in unpacked.sources:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert "\\" not in path
        assert path.isprintable() or path.strip()


@fuzz
@given(st.lists(st.tuples(NAMES, TYPES, NAMES), max_size=6))
def test_no_list_of_tar_entries_gets_out(
    bench: Bench, entries: list[tuple[str, bytes, str]]
) -> None:
    try:
        data = tar(*(special(name, kind, link) for name, kind, link in entries))
    except (ValueError, UnicodeError):
        return
    _survives(bench, data, "tar")


@fuzz
@given(st.lists(NAMES, max_size=6, unique=True))
def test_no_list_of_zip_entries_gets_out(bench: Bench, names: list[str]) -> None:
    try:
        data = zipped((name, b"x") for name in names)
    except (ValueError, UnicodeError, IndexError, UserWarning):
        return
    _survives(bench, data, "zip")


@fuzz
@given(
    st.sampled_from(["tar", "tar.gz", "zip"]),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=6),
)
@example("zip", [(30, 0)])
def test_no_flipped_byte_raises_anything_but_a_sentence(
    bench: Bench, kind: Kind, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(pack(GOOD, kind))
    for at, value in flips:
        data[at % len(data)] = value
    _survives(bench, bytes(data), kind)


@fuzz
@given(st.sampled_from(["tar", "tar.gz", "zip"]), st.binary(max_size=300))
def test_no_garbage_raises_anything_but_a_sentence(bench: Bench, kind: Kind, data: bytes) -> None:
    _survives(bench, data, kind)
