"""The program as the kubelet sees it: arguments in, exit code and last word out."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mooring.cli.digest import digest
from mooring_fetcher.cli import main
from mooring_fetcher.failure import MAX_SENTENCE, PermanentFailure, redact, sentence

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback

SHA = "sha256:" + hashlib.sha256(b"weights").hexdigest()


class Program:
    """Runs `fetch` in this process and keeps what it left."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "models"
        self.log = folder / "termination-log"

    def __call__(self, uri: str, *more: str) -> int:
        arguments = ["fetch", "--uri", uri, "--target", str(self.target)]
        arguments += ["--allow-http", "--give-up-after", "1"]
        return main([*arguments, "--termination-log", str(self.log), *more])

    @property
    def last_word(self) -> str:
        return self.log.read_text()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    before = signal.getsignal(signal.SIGTERM)
    yield Program(tmp_path)
    signal.signal(signal.SIGTERM, before)


def test_success_is_one_json_line_and_exit_code_0(web: Loopback, program: Program) -> None:
    assert program(web.put("/m.onnx", b"weights")) == 0
    told = json.loads(program.last_word)
    assert "\n" not in program.last_word
    assert told["seconds"] >= 0
    assert {key: told[key] for key in ("digest", "bytes", "files")} == {
        "digest": SHA,
        "bytes": 7,
        "files": 1,
    }


@pytest.mark.parametrize("status", [401, 404])
def test_wrong_input_is_one_sentence_and_exit_code_3(
    web: Loopback, program: Program, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    web.always["/m.onnx"] = {"status": status}
    assert program(f"{web.url}/m.onnx?sig=topsecret") == 3
    assert f"answered {status}" in program.last_word
    assert "\n" not in program.last_word
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == program.last_word
    assert "topsecret" not in captured.out + captured.err + program.last_word


def test_a_world_in_trouble_is_exit_code_1(web: Loopback, program: Program) -> None:
    web.always["/m.onnx"] = {"status": 503, "headers": {"Retry-After": "9"}}
    assert program(f"{web.url}/m.onnx") == 1
    assert "gave up" in program.last_word


def test_a_missing_or_empty_secret_is_named(
    web: Loopback, program: Program, tmp_path: Path
) -> None:
    for folder in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        options = ["--credentials-dir", str(folder), "--credentials-name", "fraud-store"]
        assert program(web.put("/m.onnx", b"weights"), *options) == 3
        assert program.last_word.startswith("Secret fraud-store was not found or is empty")


def test_a_secret_as_the_kubelet_mounts_it_is_read(
    secure_web: Loopback, authority: tuple[Path, Path], program: Program, tmp_path: Path
) -> None:
    data = tmp_path / "secret" / "..2026_01_01"
    data.mkdir(parents=True)
    (data / "token").write_text("t0psecret\n")
    (data / "ca.crt").write_bytes(authority[0].read_bytes())
    (data.parent / "..data").symlink_to(data.name)
    for key in ("token", "ca.crt"):
        (data.parent / key).symlink_to(f"..data/{key}")
    url = secure_web.put("/m.onnx", b"weights")
    assert program(url, "--credentials-dir", str(data.parent), "--credentials-name", "s") == 0
    assert secure_web.asked[0].headers["Authorization"] == "Bearer t0psecret"


def test_a_secret_that_is_not_text_is_named(program: Program, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "token").write_bytes(b"\xff\xfe")
    options = ["--credentials-dir", str(tmp_path / "secret"), "--credentials-name", "s"]
    assert program("https://127.0.0.1:1/m.onnx", *options) == 3
    assert "Secret s has a key token that is not text" in program.last_word


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_revision_without_a_pin_takes_what_it_finds(
    web: Loopback, program: Program, tmp_path: Path, content: str | None
) -> None:
    pin = tmp_path / "digest"
    if content is not None:
        pin.write_text(content)
    url = web.put("/m.onnx", b"weights")
    assert program(url, "--expected-digest-file", str(pin)) == 0


def test_a_pinned_revision_takes_nothing_else(
    web: Loopback, program: Program, tmp_path: Path
) -> None:
    pin = tmp_path / "digest"
    url = web.put("/m.onnx", b"weights")
    pin.write_text(SHA)
    assert program(url, "--expected-digest-file", str(pin)) == 0
    web.put("/m.onnx", b"other")
    pin.write_text("sha256:" + "0" * 64)
    assert program(url, "--expected-digest-file", str(pin)) == 3
    assert "changed since this revision was pinned" in program.last_word
    pin.write_text("garbage")
    assert program(url, "--expected-digest-file", str(pin)) == 3
    assert "is not a digest" in program.last_word


def test_the_limits_come_from_the_flags(web: Loopback, program: Program) -> None:
    url = web.put("/m.onnx", b"weights")
    assert program(url, "--max-bytes", "6") == 3
    assert "6 B, the limit for one model" in program.last_word


@pytest.mark.parametrize(
    "option", [("--max-bytes", "0"), ("--max-files", "x"), ("--max-ratio", "nan")]
)
def test_a_senseless_limit_is_a_usage_error(program: Program, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        program("https://127.0.0.1/m.onnx", *option)
    assert caught.value.code == 2


def test_a_fault_of_the_fetcher_itself_is_a_sentence_too(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("line one\nline two")

    monkeypatch.setattr("mooring_fetcher.cli.fetch", broken)
    assert program("https://127.0.0.1/m.onnx") == 1
    assert program.last_word.startswith("The fetcher itself failed (KeyError")
    assert "\n" not in program.last_word


def test_what_hangs_is_ended_soon_after_the_timeout_with_a_sentence(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        ended.set()

    said: list[str] = []

    def hang(*arguments: object) -> None:
        assert ended.wait(20)
        said.append(program.last_word)
        raise PermanentFailure("what hung came back after all")

    monkeypatch.setattr("mooring_fetcher.cli._LAST_MARGIN", -0.95)
    monkeypatch.setattr("mooring_fetcher.cli.os._exit", leave)
    monkeypatch.setattr("mooring_fetcher.cli.fetch", hang)
    program("https://127.0.0.1/m.onnx", "--timeout", "1")
    assert codes == [1]
    assert said[0].startswith("The model was not in place 1 s after the start")


def test_both_commands_print_the_same_digest(
    web: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"weights")
    url = web.put("/m.onnx", b"weights")
    for subject in (str(tmp_path / "m.onnx"), url):
        assert main(["digest", subject, "--allow-http"]) == 0
        assert capsys.readouterr().out == SHA + "\n"
        result = CliRunner().invoke(digest, [subject, "--allow-http"])
        assert (result.exit_code, result.stdout) == (0, SHA + "\n")
    refused = CliRunner().invoke(digest, [url])
    assert refused.exit_code == 3
    assert "use https, or --allow-http" in refused.stderr


def test_a_store_that_is_away_is_told_to_who_asks_for_a_digest_before_they_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mooring.cli.digest._PATIENCE_SECONDS", 0.1)
    found = CliRunner().invoke(digest, ["http://127.0.0.1:1/m.onnx", "--allow-http"])
    assert found.exit_code == 1
    assert "was refused" in found.stderr
    assert "without progress." in found.stderr, "no word of a pod"


def test_a_pod_that_is_deleted_does_not_wait_for_the_fetcher(web: Loopback, tmp_path: Path) -> None:
    web.put("/m.onnx", b"x" * 1_000_000)
    web.always["/m.onnx"] = {"trickle": 900_000}
    log = tmp_path / "log"
    log.write_text("")
    arguments = ["fetch", "--uri", f"{web.url}/m.onnx", "--target", str(tmp_path / "models")]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mooring_fetcher", *arguments),
            *("--allow-http", "--termination-log", str(log)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: web.sent("/m.onnx") > 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert "stopped before the model was complete" in log.read_text()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_memory_does_not_grow_with_the_model(web: Loopback, tmp_path: Path) -> None:
    """A model of 96 MiB passes through a process that grows by less than 16 MiB."""
    web.put("/m.bin", b"x" * (96 << 20))
    program = (
        "import resource, sys; from mooring_fetcher.cli import main; import mooring_fetcher.https;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "code = main(sys.argv[1:]);"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before;"
        "print(grown, file=sys.stderr); sys.exit(code)"
    )
    arguments = ["fetch", "--uri", f"{web.url}/m.bin", "--target", str(tmp_path / "models")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--allow-http"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stderr.splitlines()[-1]) < 16 << 10  # KiB


# --- sentences ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://host/a?X-Amz-Signature=abc&b=c, then", "at https://host/a?… then"),
        ("https://user:pw@host/a", "https://host/a"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("az://container@account/path", "az://container@account/path"),
        ("mlflow://fraud@champion", "mlflow://fraud@champion"),
        ("mlflow://user:pw@champion", "mlflow://champion"),
        ("path?X-Amz-Signature=abcdef&x=1", "path?X-Amz-Signature=***&x=1"),
        ("a hunter22 b", "a *** b"),
    ],
)
def test_what_may_be_secret_is_cut_out(text: str, shown: str) -> None:
    assert redact(text, ["hunter22", "", "x"]) == shown


@given(st.text(max_size=3000))
def test_a_sentence_is_one_printable_line_of_bounded_length(text: str) -> None:
    line = sentence(text)
    assert len(line) <= MAX_SENTENCE
    assert line.isprintable()


def test_the_help_names_every_flag_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fetch", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    flags = "uri target digest expected-digest-file credentials-dir credentials-name layout"
    flags += " model-name model-version max-bytes max-files max-ratio termination-log allow-http"
    for flag in flags.split():
        assert f"--{flag}" in shown
