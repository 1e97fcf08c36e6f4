"""Payments as the drift example makes them, without end; a line on standard input changes them.

The sources of the example's ``make_model`` and ``payments`` come as the first two arguments, then
the URL. Each line is JSON: how much farther people travel, and which share of the amounts is lost.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
import time
import types
from typing import Any

ROWS, PAUSE = 20, 0.1


def loaded(name: str, source: str) -> Any:
    module = types.ModuleType(name)
    module.__file__ = f"/examples/{name}/{name}.py"
    sys.modules[name] = module
    exec(source, module.__dict__)
    return module


def main() -> None:
    loaded("make_model", sys.argv[1])
    example, url = loaded("payments", sys.argv[2]), sys.argv[3]
    now = {"distance": 1.0, "lose": 0.0}
    ended = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            now.update(json.loads(line))
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    chance = random.Random(os.getpid())
    sent = 0
    failures: list[tuple[float, str]] = []
    print("started", flush=True)
    while not ended.is_set():
        rows = [example.payment(chance, now["distance"]) for _ in range(ROWS)]
        lost = [(math.nan if chance.random() < now["lose"] else one[0], *one[1:]) for one in rows]
        try:
            sent += 1
            example._send(url, lost)
        except OSError as error:
            failures.append((time.time(), repr(error)))
        time.sleep(PAUSE)
    first = min(failures, default=(None, ""))
    print(
        json.dumps(
            {"sent": sent, "failed": len(failures), "first_failure": first[0], "why": first[1]}
        ),
        flush=True,
    )


main()
