"""Shares small work on many files with forked processes, and hands the results on in the order in which it was given out.

Processes are faster here than threads, which hand the interpreter's lock back and forth around each short call. They are forked
only once enough was done to be worth it, so a small tree costs none; what is done is the same either way.

Guarantees: results come in order, in bounded memory; what fails in a worker fails here with the same error; a worker that dies is
an error; none outlives its crew, nor this process (prctl(2), PR_SET_PDEATHSIG), so nothing is written once a crew is closed.

Must not know: what the work is.
"""

from __future__ import annotations

import errno
import marshal
import os
import signal
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from msgspec import Struct, field

from upgradeconverter.disk import native
from upgradeconverter.disk.port import SourceChangedError, SourceInUseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket

# So many files are worth a process; a fork and its end take about as long as 100 small files.
WORTH_FORKING = 1000
# Where there are several processors. Two for each of two, since they wait for the disk as well: 10,000 files of 150 KB went into
# a vault in 11.3 s instead of 13.4; six or eight were no faster.
MOST_WORKERS = 4
# What goes to a worker at once, and how much of it lies ready there so that it never waits.
_PIECES, _AHEAD = 16, 3
# Pieces of work whose results may wait for those of an earlier one.
_WINDOW = 64
_LONGEST = 1 << 20
_ERRORS: dict[str, Callable[[str], Exception]] = {error.__name__: error for error in (SourceChangedError, SourceInUseError)}

Rows: TypeAlias = "Sequence[Any]"
Act: TypeAlias = "Callable[[tuple[int, ...], Rows], Any]"
Then: TypeAlias = "Callable[[tuple[int, ...], Any], None]"


class WorkerDiedError(OSError):
    """A worker process ended in the middle of its work: somebody killed it, or memory ran out."""

    def __init__(self, status: int) -> None:
        """Tell how it ended, by the status of waitpid(2)."""
        how = f"was killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with {status >> 8}"
        super().__init__(errno.EIO, f"a process that did part of the work {how}")


class _Piece(Struct, eq=False):
    """Rows that are handed out together with the descriptors that they need, and what happens with their result."""

    fds: tuple[int, ...]
    rows: Rows
    then: Then
    is_done: bool = False
    result: Any = None

    def end(self) -> None:
        """Hand the result on."""
        self.then(self.fds, self.result)


class _Worker(Struct):
    pid: int
    line: socket
    busy: deque[list[_Piece]] = field(default_factory=deque)


class Crew:
    """Does work that is given piece by piece; to be closed whatever happens.

    Calling sequence: `give` and `after` as often as wanted, `finish`, `close`.
    """

    def __init__(
        self,
        act: Act,
        *,
        prepare: Callable[[], None] | None = None,
        count: int | None = None,
        worth: int | None = None,
        at_once: int = 96,
    ) -> None:
        """Begin without any process.

        Args:
            act: does one piece: descriptors and rows in, something that `marshal` can write out. It may be called in any process.
            prepare: called once in each new process.
            count: how many processes at most; none beside this one where there is one processor only.
            worth: how many rows are done in this process before others are forked.
            at_once: how many rows a worker gets in one message.
        """
        self._act, self._prepare = act, prepare
        self._count = (MOST_WORKERS if processors() > 1 else 1) if count is None else count
        self._left = WORTH_FORKING if worth is None else worth
        self._at_once = at_once
        self._workers: list[_Worker] = []
        self._queue: deque[_Piece] = deque()
        self._bundle: list[_Piece] = []

    def give(self, fds: tuple[int, ...], rows: Rows, then: Then) -> None:
        """Have rows done; `then` gets descriptors and result here, in its turn. They may be closed when this returns."""
        if not self._workers and (self._left > 0 or not self.fork()):
            self._left -= len(rows)
            then(fds, self._act(fds, rows))
            return
        piece = _Piece(tuple(os.dup(fd) for fd in fds), rows, then)
        self._queue.append(piece)
        self._bundle.append(piece)
        if len(self._bundle) >= _PIECES or sum(len(piece.rows) for piece in self._bundle) >= self._at_once:
            self._send()
        self._advance(_WINDOW)

    def after(self, fds: tuple[int, ...], call: Callable[[tuple[int, ...]], None]) -> None:
        """Call something here once everything that was given before is done, with descriptors that may be closed meanwhile."""
        if not self._queue:
            call(fds)
            return
        kept = tuple(os.dup(fd) for fd in fds)
        self._queue.append(_Piece(kept, (), lambda fds, _: call(fds), is_done=True))
        self._advance(_WINDOW)

    def finish(self) -> None:
        """Wait until everything is done."""
        self._send()
        self._advance(0)

    def close(self) -> None:
        """End all processes, in the middle of what they do if need be, and wait for them."""
        if not self._workers and not self._queue:
            return
        import socket

        for worker in self._workers:
            # A fork that was made later may have the line as well, so it has to be cut for all.
            with suppress(OSError):
                worker.line.shutdown(socket.SHUT_RDWR)
            worker.line.close()
            if worker.busy:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            with suppress(ChildProcessError):
                os.waitpid(worker.pid, 0)
        self._workers.clear()
        self._bundle.clear()
        while self._queue:
            _let_go(self._queue.popleft())

    # --- handing out ---------------------------------------------------------------------------------------------------

    def fork(self) -> bool:
        """Fork the workers at once; False where one process is all there may be."""
        if self._workers:
            return True
        # A lock that another thread holds would stay locked in a fork for ever.
        is_alone = threading.active_count() == 1
        while is_alone and len(self._workers) < self._count > 1 and self._fork_one():
            pass
        if not self._workers:
            self._left = _LONGEST
        return bool(self._workers)

    def _fork_one(self) -> bool:
        """Fork one worker; False where there is no room for more processes, and fewer have to do."""
        import socket

        mine, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (mine, others):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        above = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            mine.close()
            others.close()
            return False
        if pid == 0:
            mine.close()
            self._work(others, above)
        others.close()
        self._workers.append(_Worker(pid, mine))
        return True

    def _work(self, line: socket, above: int) -> NoReturn:
        """Do, in a new process, what comes in until nothing can come any more; never returns."""
        try:
            native.die_with_parent()
            if os.getppid() == above:
                # Above all no lock: those of this program die with their holder, and this process may outlive it by a moment.
                _close_all_but(line.fileno())
                # Who stops the run politely stops all its processes; the one that gives the work decides what is still done.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                if self._prepare is not None:
                    self._prepare()
                while _work_once(self._act, line):
                    pass
        finally:
            # Nothing of what this process was forked from may be run here, such as flushing its streams.
            os._exit(1)

    def _send(self) -> None:
        if not self._bundle:
            return
        worker = min(self._workers, key=lambda worker: len(worker.busy))
        while len(worker.busy) >= _AHEAD:
            self._receive(self._any_ready())
            worker = min(self._workers, key=lambda worker: len(worker.busy))
        bundle, self._bundle = self._bundle, []
        import socket

        fds = [fd for piece in bundle for fd in piece.fds]
        message = marshal.dumps([(len(piece.fds), piece.rows) for piece in bundle])
        worker.busy.append(bundle)
        try:
            socket.send_fds(worker.line, [message], fds)
        except (BrokenPipeError, ConnectionResetError):
            self._has_died(worker)

    def _advance(self, most: int) -> None:
        """Hand on what is there, in order, until at most so many pieces wait."""
        while self._queue and (self._queue[0].is_done or len(self._queue) > most):
            piece = self._queue[0]
            if not piece.is_done:
                self._wait_for(piece)
                continue
            self._queue.popleft()
            try:
                piece.end()
            finally:
                _let_go(piece)

    def _wait_for(self, piece: _Piece) -> None:
        self._send()
        for worker in self._workers:
            if not piece.is_done and any(piece is each for bundle in worker.busy for each in bundle):
                self._receive(worker)
                return

    # --- taking back ---------------------------------------------------------------------------------------------------

    def _any_ready(self) -> _Worker:
        import select

        lines = [worker.line for worker in self._workers]
        ready, _, _ = select.select(lines, [], [])
        return next(worker for worker in self._workers if worker.line is ready[0])

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.line.recv(_LONGEST)
        except ConnectionResetError:
            message = b""
        if not message:
            self._has_died(worker)
        failed, results = marshal.loads(message)  # noqa: S302 - from a fork of this very process
        if failed is not None:
            _raise(*failed)
        for piece, result in zip(worker.busy.popleft(), results, strict=True):
            piece.is_done, piece.result = True, result

    def _has_died(self, worker: _Worker) -> NoReturn:
        self._workers.remove(worker)
        worker.line.close()
        raise WorkerDiedError(os.waitpid(worker.pid, 0)[1])


def processors() -> int:
    """Return on how many processors this process may run."""
    return len(os.sched_getaffinity(0))


def _let_go(piece: _Piece) -> None:
    for fd in piece.fds:
        os.close(fd)
    piece.fds = ()


def _raise(name: str, *said: Any) -> NoReturn:
    """Raise here what was raised in a worker."""
    if name == "OSError":
        raise OSError(*said)
    kind = _ERRORS.get(name)
    raise kind(said[0]) if kind is not None else RuntimeError(f"{name} in a worker: {said[0]}")


# --- in a worker -------------------------------------------------------------------------------------------------------


def _close_all_but(kept: int) -> None:
    """Close every descriptor that this process was forked with but the standard ones and one more."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _work_once(act: Act, line: socket) -> bool:
    import socket

    message, fds, _, _ = socket.recv_fds(line, _LONGEST, 4 * _PIECES)
    if not message:
        os._exit(0)
    rest = list(fds)
    failed, results = None, []
    try:
        for count, rows in marshal.loads(message):  # noqa: S302 - from the process that this one is a fork of
            results.append(act(tuple(rest[:count]), rows))
            del rest[:count]
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told where it is waited for
        failed = _said(error)
    for fd in fds:
        os.close(fd)
    line.send(marshal.dumps((failed, results)))
    return failed is None


def _said(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError):
        name = error.filename
        return "OSError", error.errno, error.strerror, name if isinstance(name, str | bytes) else None
    return type(error).__name__, str(error)
