"""How much a model may be, so that a bad archive or prefix cannot fill a node.

The volume is the last line of defence (``emptyDir.sizeLimit``); these limits fail earlier and
say why.
"""

from __future__ import annotations

from dataclasses import dataclass

from mooring_fetcher.failure import PermanentFailure

RATIO_FREE_BYTES = 10 * 1024 * 1024
"""The ratio is not judged below this much output: a file of zeros that small harms nobody."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Limits:
    """Bounds on one model, counted after unpacking."""

    max_bytes: int = 1 << 40
    max_files: int = 100_000
    max_ratio: float = 200.0
    """Bytes out per byte in, over a whole archive. Deflate can reach 1032; real weights and
    vocabularies stay below 20."""

    def check_bytes(self, count: int, where: str) -> None:
        """Raises PermanentFailure when `where` holds more bytes than allowed."""
        if count > self.max_bytes:
            raise PermanentFailure(
                f"{where} holds more than {size_text(self.max_bytes)}, the limit for one model: "
                "point the URI at the model alone, or have config.maxModelGibibytes of "
                "the chart raised (--max-bytes)."
            )

    def check_files(self, count: int, where: str) -> None:
        """Raises PermanentFailure when `where` holds more files than allowed."""
        if count > self.max_files:
            raise PermanentFailure(
                f"{where} holds more than {self.max_files} files, the limit for one model: point "
                "the URI at the model alone or raise --max-files."
            )

    def check_ratio(self, bytes_out: int, bytes_in: int, where: str) -> None:
        """Raises PermanentFailure when an archive grows suspiciously."""
        if bytes_out > RATIO_FREE_BYTES and bytes_out > self.max_ratio * max(bytes_in, 1):
            raise PermanentFailure(
                f"{where} unpacks to more than {self.max_ratio:g} times its size, as a "
                "decompression bomb does: publish the files unpacked or raise --max-ratio."
            )


def size_text(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"
