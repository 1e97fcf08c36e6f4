"""A line to the model store that counts what the store sends, and holds it back on demand."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

_CHUNK = 1 << 16
_PATIENCE = 60.0
"""Seconds after which a line that nobody opens again breaks."""


class MeteredLine:
    """A TCP relay, so what it counts are the bytes that crossed, whoever says what.

    Attributes:
        crossed: bytes that the store has sent, over all connections.
        endpoint: the store's URL by way of this line.
    """

    def __init__(self, upstream: tuple[str, int], address: str) -> None:
        self.crossed = 0
        self._upstream = upstream
        self._limit = 1 << 62
        self._moved = threading.Condition()
        self._listener = socket.create_server((address, 0))
        self.endpoint = f"http://{address}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and let those that are there end."""
        self._open_up()
        # Closing alone would not wake the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def held_after(self, count: int) -> Iterator[None]:
        """Inside, no connection brings more than `count` bytes: listings pass, a model does not."""
        with self._moved:
            self._limit = count
        try:
            yield
        finally:
            self._open_up()

    def _open_up(self) -> None:
        with self._moved:
            self._limit = 1 << 62
            self._moved.notify_all()

    def _may_bring(self, brought: int) -> bool:
        return brought < self._limit

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(self._upstream) as store,
        ):
            threading.Thread(target=_pump, args=(client, store), daemon=True).start()
            brought = 0
            while chunk := store.recv(_CHUNK):
                with self._moved:
                    if not self._moved.wait_for(partial(self._may_bring, brought), _PATIENCE):
                        return
                    self.crossed += len(chunk)
                brought += len(chunk)
                client.sendall(chunk)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK):
            sink.sendall(chunk)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
