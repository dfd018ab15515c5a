"""How a run goes is told to whoever is there, in a way that they can read: events, a terminal of any kind, systemd."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from tests.support.olddisk import fake_vault, make_disk, unsynced
from upgradeconverter import log
from upgradeconverter.cli import main as cli
from upgradeconverter.cli import progress
from upgradeconverter.cli.notify import Notifier
from upgradeconverter.cli.progress import Bar, Line, Lines, Seldom, as_line, as_status, display, metered
from upgradeconverter.engine.progress import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
READING = Reading(
    what="post-vault",
    doing="copying",
    items=120,
    of_items=200,
    size=1288490189,
    of_size=4 << 30,
    rate=68.0 * (1 << 20),
    left=41.4,
    moves=7,
)
LONG = replace(READING, what="a phase of some pack that has a very long name", left=100000.0, of_size=1 << 50, items=123456)


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    log._logger.cache_clear()


# --- words -----------------------------------------------------------------------------------------------------------------


def test_words() -> None:
    """The line and the sentence have items, bytes, rate and time left."""
    line = "post-vault  30 %  120/200 items  1.2 of 4.0 GiB  68.0 MiB/s  0:41 left  copying"
    assert as_line(READING, 200) == line
    assert as_status(READING) == "post-vault: 30 %, 120/200 items, 1.2 of 4.0 GiB, 68.0 MiB/s, 0:41 left, copying"
    bare = replace(READING, size=0, of_size=0, rate=0.0, left=None, doing="")
    assert as_status(bare) == "post-vault: 60 %, 120/200 items"
    assert "27:46:40 left" in as_status(LONG)


@pytest.mark.parametrize("reading", [READING, LONG])
def test_line_fits(reading: Reading) -> None:
    """No line is broken by a serial console of 80 columns, nor written in its last column."""
    assert len(as_line(reading)) <= 79


# --- events ----------------------------------------------------------------------------------------------------------------


def test_at_most_one_event_a_second() -> None:
    """Of ten readings a second over five seconds, one a second is passed on, the very first one at once."""
    now = 0.0
    told: list[tuple[float, Reading]] = []
    seldom = Seldom(every=progress.EVENTS, tell=lambda reading: told.append((now, reading)), clock=lambda: now)
    for _ in range(50):
        seldom(READING)
        now += 0.1
    times = [when for when, _ in told]
    assert times[0] == 0.0
    assert len(times) == 5
    assert min(after - before for before, after in pairwise(times)) >= 1.0


def test_whoever_watches_sees_at_once_what_is_done_now() -> None:
    """A display does not go on saying that it copies while the disk is synced."""
    told: list[str] = []
    seldom = Seldom(every=60.0, tell=lambda reading: told.append(reading.doing), eager=True, clock=lambda: 0.0)
    for doing in ("copying", "copying", "syncing", "syncing"):
        seldom(replace(READING, doing=doing))
    assert told == ["copying", "syncing"]


def test_time_that_telling_takes_is_no_interval() -> None:
    """Where telling itself takes long, the next one still comes a second after it."""
    now = 0.0

    def slowly(_: Reading) -> None:
        nonlocal now
        now += 3.0

    seldom = Seldom(every=1.0, tell=slowly, clock=lambda: now)
    seldom(READING)
    now += 0.5
    seldom(READING)
    assert now == 3.5


def test_event_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is one JSON object with numbers in bytes and seconds."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log._logger.cache_clear()
    with metered(quiet=False) as meter:
        for watcher in meter.watchers:
            watcher(READING)
            watcher(READING)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert {name: found[name] for name in ("event", "what", "doing", "percent", "items", "of_items")} == {
        "event": "progress",
        "what": "post-vault",
        "doing": "copying",
        "percent": 30,
        "items": 120,
        "of_items": 200,
    }
    assert (found["bytes"], found["of_bytes"], found["rate"], found["left"]) == (1288490189, 4 << 30, 68 << 20, 41)


def _whole_run(top: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY", "UPGRADECONVERTER"))}
    return subprocess.run(
        (sys.executable, "-m", "upgradeconverter", *words, "-p", str(top), "--target", "latest", "--output", "json"),
        cwd=ROOT,
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("words", [(), ("--quiet",)])
def test_events_do_not_touch_the_report(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Events go to standard error, each a line of JSON, and the report on standard output stays one document."""
    make_disk(tmp_path / "persist")
    ended = _whole_run(tmp_path / "persist", *words)
    assert json.loads(ended.stdout)["outcome"] == "done"
    told = [event for event in map(json.loads, ended.stderr.splitlines()) if event["event"] == "progress"]
    assert bool(told) == (not words)
    assert all(event["items"] <= event["of_items"] and event["of_items"] > 0 for event in told)


# --- terminals -------------------------------------------------------------------------------------------------------------


@dataclass
class Terminal:
    """What a pseudo terminal got."""

    reader: int
    got: str = ""
    kinds: list[str] = field(default_factory=list)

    def read(self) -> str:
        """Take what has come so far."""
        while select.select([self.reader], [], [], 0)[0]:
            try:
                self.got += os.read(self.reader, 1 << 16).decode()
            except OSError:
                break
        return self.got


@contextmanager
def _terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> Iterator[Terminal]:
    """Let standard error be a terminal of one kind."""
    reader, writer = pty.openpty()
    monkeypatch.setenv("TERM", term)
    with os.fdopen(writer, "w", encoding="utf-8") as stream, closing(os.fdopen(reader, "rb")):
        monkeypatch.setattr(sys, "stderr", stream)
        log._logger.cache_clear()
        yield Terminal(reader)


@pytest.mark.parametrize(
    ("term", "rich", "kind"),
    [("dumb", True, Lines), ("", True, Lines), ("vt100", True, Bar), ("xterm-256color", True, Bar), ("xterm", False, Line)],
)
def test_display_is_what_the_terminal_can_show(monkeypatch: pytest.MonkeyPatch, term: str, rich: bool, kind: type) -> None:
    """Lines for a terminal that can do nothing else, a bar where the optional package is, else one line."""
    monkeypatch.setenv("TERM", term)
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    assert type(display()) is kind


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal without control sequences gets plain lines that it does not break, and an event between them."""
    with _terminal(monkeypatch, "dumb") as terminal:
        with metered(quiet=False) as meter:
            meter.watchers[0](LONG)
            log.event("wave-done", txid="1")
            meter.watchers[0](LONG)
        got = terminal.read()
    assert "\x1b" not in got
    assert [line for line in got.split("\r\n") if line.startswith("a phase")] == [as_line(LONG)]
    assert "\r" not in got.replace("\r\n", "")
    assert "wave-done" in got


def test_plain_line_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package one line is overwritten by carriage returns, makes room for an event, and is gone at the end."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with _terminal(monkeypatch, "linux") as terminal:
        with ExitStack() as opened:
            meter = opened.enter_context(metered(quiet=False))
            monkeypatch.setattr(meter.watchers[0], "every", 0.0)
            meter.watchers[0](READING)
            monkeypatch.setattr(meter.watchers[0], "_next", 0.0)
            meter.watchers[0](replace(READING, doing=""))
            shown = terminal.read()
            log.event("wave-done", txid="1")
        got = terminal.read()
    first, second = as_line(READING), as_line(replace(READING, doing=""))
    assert shown == f"\r{first}\r{second:<{len(first)}}"
    assert got.removeprefix(shown).startswith(f"\r{'':<{len(second)}}\r")
    assert "\n" not in shown
    assert got.endswith("\r\n")


def test_bar_shows_the_words_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package there is a bar with the same words, on one line of 80 columns, which is wiped away at the end."""
    monkeypatch.setenv("COLUMNS", "80")
    with _terminal(monkeypatch, "xterm-256color") as terminal:
        with metered(quiet=False) as meter:
            meter.watchers[0](READING)
            shown = terminal.read()
        got = terminal.read()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).strip()
    assert "120/200 items  1.2 of 4.0 GiB  68.0 MiB/s  0:41 left" in plain
    assert max(len(line) for line in re.split("[\r\n]+", plain)) <= 80
    assert "\x1b[?25l" in got
    assert got.index("\x1b[?25h") > got.index("\x1b[?25l")
    assert "\x1b[2K" in got.removeprefix(shown)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_quiet_terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """With --quiet no terminal is shown anything, and no watcher is even made."""
    with _terminal(monkeypatch, term) as terminal:
        with metered(quiet=True) as meter:
            assert meter.watchers == ()
        assert terminal.read() == ""


def test_nobody_there() -> None:
    """Without any standard error there is no display, and a terminal that has gone away is no failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        with metered(quiet=False) as meter:
            meter.watchers[0](READING)
    stream = io.StringIO()
    stream.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        Lines().show(READING)
        Line().show(READING)


@pytest.mark.parametrize("command", ["run", "confirm", "rollback"])
def test_whole_program_on_a_dumb_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Every command that acts shows how it goes, and never says more to a serial console than text and ends of lines."""
    top = make_disk(tmp_path / "persist")
    words = ("-p", top, "--target", "latest")
    with unsynced(), fake_vault(), _terminal(monkeypatch, "dumb") as terminal:
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        if command != "run":
            assert cli.main(["--quiet", *(("--trial",) if command == "confirm" else ()), *words]) == 0
        assert not re.search(r" \d+ %", terminal.read())
        assert cli.main([command, *words]) == 0
        got = terminal.read()
    assert "\x1b" not in got
    assert re.search(r"^(post-vault|pre-vault|confirm|rollback)  \d+ %  \d+/\d+ items", got, re.MULTILINE)


# --- systemd ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _systemd(place: str) -> Iterator[socket.socket]:
    """Listen as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{place[1:]}" if place.startswith("@") else place)
        listener.settimeout(5)
        yield listener


def _received(listener: socket.socket) -> list[str]:
    """Return all that has come."""
    found = []
    while select.select([listener], [], [], 0)[0]:
        found.append(listener.recv(1 << 16).decode())
    return found


def _tell(notifier: Notifier, reading: Reading) -> None:
    notifier.tell(as_status(reading), reading.moves)


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told(tmp_path: Path, kind: str) -> None:
    """A datagram has the status, and a longer time only when something has moved since the one before."""
    place = f"{tmp_path}/notify" if kind == "path" else f"@{tmp_path.name}-{os.getpid()}"
    with _systemd(place) as listener, closing(Notifier(place)) as notifier:
        for reading in (READING, READING, replace(READING, moves=8)):
            _tell(notifier, reading)
        status = f"STATUS={as_status(READING)}"
        longer = "EXTEND_TIMEOUT_USEC=360000000"
        assert _received(listener) == [f"{status}\n{longer}", status, f"{status}\n{longer}"]


def test_nothing_is_extended_before_anything_has_moved(tmp_path: Path) -> None:
    """The first reading, before the first byte, moves no time limit."""
    place = f"{tmp_path}/notify"
    with _systemd(place) as listener, closing(Notifier(place)) as notifier:
        _tell(notifier, replace(READING, moves=0))
        assert [text.count("\n") for text in _received(listener)] == [0]


def test_systemd_that_does_not_listen(tmp_path: Path) -> None:
    """A socket that nobody reads, or that is not there, holds nothing up; a reading that gets through counts as progress."""
    place = f"{tmp_path}/notify"
    with closing(Notifier(place)) as notifier:
        _tell(notifier, READING)
        with _systemd(place) as listener:
            _tell(notifier, READING)
            assert [text.count("EXTEND") for text in _received(listener)] == [1]
            for moves in range(10000):
                _tell(notifier, replace(READING, moves=moves))
    with closing(Notifier("\0bad")) as notifier:
        _tell(notifier, READING)


@pytest.mark.parametrize("words", [(), ("--quiet",)])
def test_whole_program_tells_systemd(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Started by systemd, a run sends its status and no events; `--quiet` is about people, and leaves that."""
    make_disk(tmp_path / "persist")
    place = f"{tmp_path}/notify"
    with _systemd(place) as listener:
        ended = _whole_run(tmp_path / "persist", *words, NOTIFY_SOCKET=place)
        received = _received(listener)
    assert ended.returncode == 0
    assert received
    assert all(re.match(r"STATUS=(pre|post)-vault: \d+ %, \d+/\d+ items", text) for text in received)
    assert "READY" not in "".join(received)
    assert '"progress"' not in ended.stderr


def _modules(program: str) -> set[str]:
    done = subprocess.run(
        (sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    return set(done.stdout.split())


def test_nothing_is_imported_before_there_is_something_to_tell() -> None:
    """Neither sockets nor the optional package are loaded for a run that turns out to have nothing to do."""
    program = (
        "import os; os.environ['NOTIFY_SOCKET'] = '/nonexistent'\n"
        "sys.stderr.isatty = lambda: True\n"
        "from upgradeconverter.cli.progress import metered\n"
        "with metered(quiet=False) as meter: assert len(meter.watchers) == 2"
    )
    loaded: Any = _modules(program)
    assert loaded & {"rich", "structlog", "socket"} == set()
