"""The command line of the init container.

Its last word goes to the termination message, from where the operator lifts it into the status
of the ModelDeployment: one JSON line on success, one sentence on failure. Exit codes: 0 fetched;
1 the world was at fault, a later start may succeed; 3 the input is at fault.

argparse, not click: the image carries nothing that the work does not need.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mooring_fetcher import __version__
from mooring_fetcher.credentials import Credentials, read_credentials
from mooring_fetcher.digest import ModelDigest, digest_path, parse_digest
from mooring_fetcher.failure import (
    EXIT_OK,
    EXIT_PERMANENT,
    EXIT_TRANSIENT,
    PermanentFailure,
    TransientFailure,
    sentence,
)
from mooring_fetcher.fetch import Request, Run, digest_uri, fetch
from mooring_fetcher.limits import Limits
from mooring_fetcher.patience import Patience, RetryPolicy
from mooring_fetcher.placing import LAYOUTS

TERMINATION_LOG = Path("/dev/termination-log")
EXIT_TERMINATED = 143

_MAX_DIGEST_FILE = 1024
_LAST_MARGIN = 60.0
"""Seconds after --timeout in which it may end by itself, with a better sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "cache":
        return _serve(arguments)
    log = _TerminationLog(arguments.termination_log)
    signal.signal(signal.SIGTERM, _on_sigterm(log))
    secrets: list[str] = []

    def say(line: str) -> None:
        print(sentence(line, secrets), flush=True)

    def end() -> None:
        told = (
            f"The model was not in place {arguments.timeout} s after the start: the store or the "
            "disk is too slow or --timeout too short."
        )
        _fail(told, secrets, log, EXIT_TRANSIENT)
        # Whatever hangs would not hear of an exception.
        os._exit(EXIT_TRANSIENT)

    last = threading.Timer(arguments.timeout + _LAST_MARGIN, end)
    last.daemon = True
    last.start()
    try:
        credentials = read_credentials(arguments.credentials_dir, arguments.credentials_name)
        secrets += credentials.secrets
        run = _run(arguments, credentials, say)
        if arguments.command == "digest":
            print(_digest(arguments, run).digest)
            return EXIT_OK
        model = _fetch(arguments, run)
    except PermanentFailure as failure:
        return _fail(str(failure), secrets, log, EXIT_PERMANENT)
    except TransientFailure as failure:
        return _fail(str(failure), secrets, log, EXIT_TRANSIENT)
    except Exception as error:  # noqa: BLE001  the last word must be a sentence, whatever happens
        told = f"The fetcher itself failed ({type(error).__name__}: {error}): please report it."
        return _fail(told, secrets, log, EXIT_TRANSIENT)
    finally:
        last.cancel()
    outcome = {
        "digest": model.digest,
        "bytes": model.size,
        "files": model.files,
        "seconds": round(run.patience.elapsed(), 3),
    }
    print(json.dumps(outcome), flush=True)
    log.write(json.dumps(outcome))
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mooring-fetcher",
        description="Fetches a model into a volume and proves which bytes it fetched.",
        epilog="Exit codes: 0 done; 1 failed for now; 3 the input is wrong.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("fetch", help="fetch a model into --target")
    one.add_argument("--uri", required=True, help="s3://…, https://… or pvc://claim/path")
    one.add_argument("--target", required=True, type=Path, help="the model volume")
    one.add_argument("--digest", default="", help="the digest that the spec declares")
    one.add_argument(
        "--expected-digest-file",
        type=Path,
        help="a file with the digest this revision is pinned to; absent or empty: not yet pinned",
    )
    one.add_argument("--cache", default="", help="the URL of the node's cache of models")
    one.add_argument("--layout", choices=LAYOUTS, default="flat")
    one.add_argument("--model-name", default="", help="the model's name in triton and torchserve")
    one.add_argument("--model-version", default="1", help="the folder's name in layout tfserving")
    _add_common(one)

    cache = commands.add_parser("cache", help="serve as the cache of a node")
    cache.add_argument("--dir", required=True, type=Path, help="a folder of its own")
    cache.add_argument("--max-bytes", required=True, type=_positive, metavar="N")
    cache.add_argument("--port", type=int, default=8085)

    other = commands.add_parser("digest", help="print the digest of a path or URI")
    other.add_argument("subject", metavar="PATH|URI")
    _add_common(other)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    limits, policy = Limits(), RetryPolicy()
    parser.add_argument("--allow-http", action="store_true", help="allow plain http:// URIs")
    parser.add_argument("--credentials-dir", type=Path, help="a Secret, one file per key")
    parser.add_argument(
        "--credentials-name", default="", help="the Secret's name; then it must not be empty"
    )
    parser.add_argument("--max-bytes", type=_positive, default=limits.max_bytes, metavar="N")
    parser.add_argument("--max-files", type=_positive, default=limits.max_files, metavar="N")
    parser.add_argument("--max-ratio", type=_ratio, default=limits.max_ratio, metavar="N")
    parser.add_argument("--parallel", type=_positive, default=4, help="files at a time")
    parser.add_argument(
        "--timeout", type=_positive, default=int(policy.total), help="seconds for everything"
    )
    parser.add_argument(
        "--give-up-after",
        type=_positive,
        default=int(policy.without_progress),
        help="seconds of retries without progress",
    )
    parser.add_argument("--termination-log", type=Path, help=f"default {TERMINATION_LOG}")


def _run(
    arguments: argparse.Namespace, credentials: Credentials, say: Callable[[str], None]
) -> Run:
    # `digest` prints one line on stdout; what it has to say goes elsewhere.
    voice = say if arguments.command == "fetch" else lambda line: None
    policy = RetryPolicy(total=arguments.timeout, without_progress=arguments.give_up_after)
    return Run(
        limits=Limits(arguments.max_bytes, arguments.max_files, arguments.max_ratio),
        patience=Patience(policy=policy, say=voice),
        credentials=credentials,
        say=voice,
        parallel=min(arguments.parallel, 16),
        cache=arguments.cache if arguments.command == "fetch" else "",
    )


def _serve(arguments: argparse.Namespace) -> int:
    from mooring_fetcher.cache_server import serve

    try:
        serve(arguments.dir, arguments.max_bytes, arguments.port)
    except OSError as error:
        print(f"The cache cannot serve {arguments.dir}: {error}.", file=sys.stderr, flush=True)
        return EXIT_TRANSIENT
    return EXIT_OK


def _fetch(arguments: argparse.Namespace, run: Run) -> ModelDigest:
    request = Request(
        uri=arguments.uri,
        target=arguments.target,
        declared=arguments.digest or None,
        pinned=_pinned(arguments.expected_digest_file),
        layout=arguments.layout,
        model_version=arguments.model_version,
        model_name=arguments.model_name,
        allow_http=arguments.allow_http,
    )
    return fetch(request, run)


def _digest(arguments: argparse.Namespace, run: Run) -> ModelDigest:
    if "://" in arguments.subject:
        return digest_uri(arguments.subject, run, allow_http=arguments.allow_http)
    return digest_path(Path(arguments.subject), limits=run.limits)


def _pinned(file: Path | None) -> str | None:
    """The digest in the revision's ConfigMap; None while the first pod has not fixed it yet."""
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_DIGEST_FILE).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TransientFailure(f"{file} cannot be read: {error.strerror or error}.") from None
    return parse_digest(text, str(file))


class _TerminationLog:
    """The file that the kubelet makes for a container's last word. Where it is not there (on a
    developer's machine) and none was asked for, nothing is written.
    """

    def __init__(self, asked: Path | None) -> None:
        self._path = asked or (TERMINATION_LOG if TERMINATION_LOG.exists() else None)

    def write(self, line: str) -> None:
        if self._path is None:
            return
        try:
            self._path.write_text(line)
        except OSError as error:
            print(f"{self._path} cannot be written: {error.strerror}", file=sys.stderr)


def _fail(text: str, secrets: Sequence[str], log: _TerminationLog, code: int) -> int:
    line = sentence(text, secrets)
    print(line, file=sys.stderr, flush=True)
    log.write(line)
    return code


def _on_sigterm(log: _TerminationLog) -> Callable[[int, FrameType | None], NoReturn]:
    """As process 1 of a container the default would be to ignore the signal."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        log.write("The fetcher was stopped before the model was complete.")
        # Transfers run in threads that a plain exit would wait for.
        os._exit(EXIT_TERMINATED)

    return leave


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of at least 1")
    return value
