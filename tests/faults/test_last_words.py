"""A run that does not come to its end shows what its operators said last."""

from __future__ import annotations

import logging

from tests.faults.last_words import last_words


def test_warnings_are_kept_each_once_and_the_latest_of_many() -> None:
    log = logging.getLogger("mooring.engine.resync")
    with last_words() as said:
        log.info("seeding")
        for number in range(9):
            for _ in range(2):
                log.warning("cannot list %s yet", number)
        for _ in range(9):
            log.warning("a long one: %s", "x" * 300)
        log.error("a defect", exc_info=KeyError("odd"))
    log.warning("after the run")
    *short, long, defect = said.said
    assert short == [f"cannot list {number} yet" for number in range(5, 9)]
    assert long.startswith("a long one: xxx")
    assert defect == "a defect (KeyError('odd'))"
    assert str(said).startswith("cannot list 5 yet | ")


def test_an_operator_that_said_nothing_is_said_to_have() -> None:
    with last_words() as said:
        pass
    assert str(said) == "nothing"
