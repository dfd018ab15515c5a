"""Being asked to stop: SIGTERM and SIGINT are noted, and the run ends where it can put back what it began.

While copies are staged a request is heard at the next chunk or step; once names change, the wave is brought to its end first,
which is short. Must not know what a wave is.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upgradeconverter.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEARD: list[str] = []


@contextmanager
def stopping_politely() -> Iterator[None]:
    """Note the signals instead of dying of them while the body runs."""
    _HEARD.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear(number: int, _: object) -> None:
    _HEARD.append(signal.Signals(number).name)


def check() -> None:
    """Raise InterruptedRunError when somebody has asked to stop."""
    if _HEARD:
        raise InterruptedRunError(_HEARD[0])
