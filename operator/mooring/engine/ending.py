"""How tasks end: to the last one, whatever comes meanwhile.

Who waits in a ``finally`` for the tasks that it has cancelled can be cancelled there a second time,
and leaves behind what has not ended yet. What is left of kopf's watchers can keep an event loop
from closing for ever: they wait for helpers of theirs which the closing loop ends first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any


async def ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits until each has ended; what they raise stays with them.

    Raises:
        CancelledError: the one who waits was cancelled meanwhile; all of them have ended by then.
    """
    for task in tasks:
        task.cancel()
    await _all_done(tasks, hurry=True)


async def to_its_end(tidying: Coroutine[Any, Any, None]) -> None:
    """Awaits something that must not be left half done.

    Raises:
        CancelledError: the one who waits was cancelled meanwhile; it is done by then.
    """
    task = asyncio.create_task(tidying)
    try:
        await _all_done({task}, hurry=False)
    finally:
        task.result()


async def _all_done(tasks: Collection[asyncio.Task[Any]], *, hurry: bool) -> None:
    """``hurry`` passes each cancellation on: a task may have taken the first as a wish to tidy."""
    cancelled: asyncio.CancelledError | None = None
    while waiting := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            for task in waiting if hurry else ():
                task.cancel()
    if cancelled is not None:
        raise cancelled
