"""What the operators of a run said last, for a run that does not come to its end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

#: Warnings; the operator repeats itself while it tries again.
_MOST = 6
_SHOWN = 200


class LastWords(logging.Handler):
    """The latest warnings, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: deque[str] = deque(maxlen=_MOST)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the words; what a defect was is in its last line."""
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words += f" ({record.exc_info[1]!r})"
        words = words[:_SHOWN]
        if words not in self.said:
            self.said.append(words)

    def __str__(self) -> str:
        return " | ".join(self.said) or "nothing"


@contextmanager
def last_words() -> Iterator[LastWords]:
    """Listens to the operator and to kopf meanwhile, whoever else does."""
    listening = LastWords()
    loggers = [logging.getLogger(name) for name in ("mooring", "kopf")]
    for logger in loggers:
        logger.addHandler(listening)
    try:
        yield listening
    finally:
        for logger in loggers:
            logger.removeHandler(listening)
