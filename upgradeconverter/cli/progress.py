"""Who is told how a run goes, while it works: a person at a terminal, whoever reads the events, and systemd.

On a terminal that can do more than write lines, one line is kept up to date, by the optional `rich` or by carriage returns; on
one that cannot (`TERM=dumb`, a serial console) lines without any control sequence follow one another. Where standard error is no
terminal there are events as JSON, and none where systemd is told: that would only fill its journal.

Nothing is imported before there is something to tell, and there are no threads: what copies may fork.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from upgradeconverter import log
from upgradeconverter.cli import notify, watching
from upgradeconverter.engine.progress import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upgradeconverter.engine.progress import Reading

_WIDTH, _BAR = 80, 8
# Seconds between two readings: of events and of systemd, of a line that is kept up to date, and of lines that follow one another.
EVENTS, LIVE, LINES = 1.0, 0.2, 5.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


class Display(Protocol):
    """Shows readings to a person."""

    def show(self, reading: Reading) -> None:
        """Show one reading in the place of the one before."""
        ...

    def hide(self) -> None:
        """Make room for something else, and for good at the end."""
        ...


class Seldom(Struct, kw_only=True):
    """Passes readings on, at most one in so many seconds; if `eager`, at once when something else is done than before."""

    every: float
    tell: Callable[[Reading], None]
    eager: bool = False
    clock: Callable[[], float] = time.monotonic
    _next: float = float("-inf")
    _doing: str = ""

    def __call__(self, reading: Reading) -> None:
        """Pass one reading on, unless it comes too early."""
        if self.clock() >= self._next or (self.eager and reading.doing != self._doing):
            self._doing = reading.doing
            self.tell(reading)
            self._next = self.clock() + self.every


@contextmanager
def metered(*, quiet: bool) -> Iterator[Meter]:
    """Return a meter that tells whoever is there; what it shows is gone afterwards. `quiet` silences all but systemd."""
    with ExitStack() as opened:
        watchers: list[Callable[[Reading], None]] = []
        place = os.environ.get(notify.VARIABLE, "")
        if watching.is_watched():
            watchers.append(lambda reading: watching.told_moves(reading.moves, as_status(reading)))
        elif place:
            notifier = opened.enter_context(closing(notify.Notifier(place)))
            watchers.append(Seldom(every=EVENTS, tell=lambda r: notifier.tell(as_status(r), r.moves), eager=True))
        if not quiet and _is_terminal():
            person = _Person()
            opened.callback(person.hide)
            opened.enter_context(log.behind(person.hide))
            watchers.append(Seldom(every=LINES if log.is_dumb() else LIVE, tell=person.show, eager=True))
        elif not quiet and not place:
            watchers.append(Seldom(every=EVENTS, tell=as_event))
        yield Meter(watchers=tuple(watchers))


def _is_terminal() -> bool:
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


class _Person(Struct):
    """A person at the terminal, with what that can do."""

    display: Display | None = None

    def show(self, reading: Reading) -> None:
        if self.display is None:
            self.display = display()
        self.display.show(reading)

    def hide(self) -> None:
        if self.display is not None:
            self.display.hide()


def display() -> Display:
    """Return what the terminal and the installed packages allow."""
    if log.is_dumb():
        return Lines()
    try:
        return Bar()
    except ImportError:
        return Line()


def as_event(reading: Reading) -> None:
    """Log a reading as an event: sizes in bytes, rate in bytes a second, time left in seconds, null while nobody knows."""
    log.event(
        "progress",
        what=reading.what,
        doing=reading.doing,
        percent=reading.percent,
        items=reading.items,
        of_items=reading.of_items,
        bytes=reading.size,
        of_bytes=reading.of_size,
        rate=round(reading.rate),
        left=None if reading.left is None else round(reading.left),
    )


def as_status(reading: Reading) -> str:
    """Return a reading as the sentence that `systemctl status` shows."""
    return f"{reading.what}: {', '.join(_parts(reading))}"


def as_line(reading: Reading, width: int = _WIDTH) -> str:
    """Return a reading as a line that a terminal of that width does not break."""
    return f"{reading.what}  {'  '.join(_parts(reading))}"[: width - 1]


def _parts(reading: Reading) -> list[str]:
    parts = [f"{reading.percent} %", f"{reading.items}/{reading.of_items} items"]
    if reading.of_size:
        parts.append(amount(reading.of_size, reading.size))
    if reading.rate:
        parts.append(f"{amount(reading.rate)}/s")
    if reading.left is not None:
        parts.append(f"{_duration(reading.left)} left")
    return [*parts, reading.doing] if reading.doing else parts


def amount(size: float, part: float | None = None) -> str:
    """Return a number of bytes, or how many of them, in a unit that suits it."""
    unit = 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, part, unit = size / _STEP, part / _STEP if part is not None else None, unit + 1
    shown = "" if part is None else f"{part:.1f} of "
    return f"{shown}{size:.1f} {_UNITS[unit]}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _put(text: str) -> None:
    """Write to standard error; nobody there is no failure."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


class Lines:
    """One line after the other, for a terminal that knows nothing else."""

    def show(self, reading: Reading) -> None:
        """Write one more line."""
        _put(f"{as_line(reading)}\n")

    def hide(self) -> None:
        """Leave the lines where they are."""


class Line(Struct):
    """One line that is overwritten, by nothing but carriage returns and blanks."""

    length: int = 0

    def show(self, reading: Reading) -> None:
        """Overwrite the line."""
        text = as_line(reading, _columns())
        _put(f"\r{text:<{self.length}}")
        self.length = len(text)

    def hide(self) -> None:
        """Blank the line out."""
        if self.length:
            _put(f"\r{'':<{self.length}}\r")
            self.length = 0


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


class Bar:
    """A bar with the same words, by `rich`; it is drawn when told and by nobody else."""

    def __init__(self) -> None:
        """Prepare it; ImportError where the optional package is missing."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        words = TextColumn("{task.fields[words]}", markup=False)
        self._progress: Any = Progress(
            BarColumn(bar_width=_BAR),
            words,
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=100, words="")
        self._is_shown = False

    def show(self, reading: Reading) -> None:
        """Draw it."""
        with suppress(OSError, ValueError):
            self._progress.update(self._task, completed=reading.percent, words=as_line(reading, _columns() - _BAR - 1))
            if not self._is_shown:
                self._progress.start()
                self._is_shown = True
            self._progress.refresh()

    def hide(self) -> None:
        """Wipe it away."""
        if self._is_shown:
            self._is_shown = False
            with suppress(OSError, ValueError):
                self._progress.stop()
