"""The program's door to the kernel, which can fail or kill at any call: fast enough to do so at every one.

Every call by which the program looks at a disk or changes it goes through a name of the modules `os`, `fcntl`, `xattr`, `hashlib`
and `builtins`, or through the C library of `disk.native`; what the preflight looks at before is none of it. `armed` puts a guard
before each of these. That no call which changes something gets past the guards is what `test_door` compares with what strace
sees.

Calls are counted apart: those that change something or make it durable (`CHANGE`), and those that only look (`LOOK`). A death
before a call that only looks leaves the same disk as one before the next change.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import hashlib
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import xattr

from upgradeconverter.disk import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANGE, LOOK = "change", "look"
DEATH = 0
_WRITABLE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# What a disk without room refuses; it still lets names and bytes go.
_NEEDS_ROOM = frozenset(
    {"open", "mkdir", "symlink", "link", "mknod", "rename", "write", "pwrite", "setxattr", "fsync", "fdatasync", "syncfs"}
)
_SETTING = (native._FS_IOC_SETFLAGS, native._FS_IOC_FSSETXATTR, native._FICLONE)
_CHANGES = (
    "mkdir",
    "symlink",
    "link",
    "mknod",
    "rename",
    "unlink",
    "rmdir",
    "chown",
    "fchown",
    "chmod",
    "fchmod",
    "utime",
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "fdatasync",
)
_LOOKS = (
    "stat",
    "lstat",
    "fstat",
    "scandir",
    "listdir",
    "read",
    "pread",
    "preadv",
    "lseek",
    "readlink",
    "fstatvfs",
    "dup",
    "listxattr",
)


class Lasting(StrEnum):
    """How often a fault comes: at one call, or at that one and from then on."""

    ONCE = "once"
    ON = "from then on"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call.

    Attributes:
        at: number of the call among those of its kind, from 0.
        kind: `CHANGE` or `LOOK`.
        code: errno, or `DEATH` for the end of the process.
        lasting: whether later calls fail as well.
        torn: the call, a write, does half of its work before that.
    """

    at: int
    kind: str = CHANGE
    code: int = DEATH
    lasting: Lasting = Lasting.ONCE
    torn: bool = False

    def __str__(self) -> str:
        """Say it in a few words."""
        what = errno.errorcode[self.code] if self.code else "death"
        return f"{what} {self.lasting if self.code else 'before'} {self.kind} {self.at}{' torn' if self.torn else ''}"


@dataclass(slots=True)
class Door:
    """Counts the calls, and lets the fault happen when its call comes.

    Attributes:
        calls: names of all calls so far, by kind.
        reached: whether the fault has happened.
    """

    fault: Fault | None = None
    calls: dict[str, list[str]] = field(default_factory=lambda: {CHANGE: [], LOOK: []})
    reached: bool = False

    def code_for(self, kind: str, name: str) -> int | None:
        """Count a call; returns the errno that it has to fail with, or None. Does not return when the process is to die."""
        number = len(self.calls[kind])
        self.calls[kind].append(name)
        fault = self.fault
        if fault is None or (not self.reached and (fault.kind != kind or fault.at != number)):
            return None
        if not self.reached:
            self.reached = True
            if fault.code == DEATH and not fault.torn:
                os.kill(os.getpid(), signal.SIGKILL)
            return fault.code
        return fault.code if fault.lasting is Lasting.ON and self._lasts(kind, name) else None

    def _lasts(self, kind: str, name: str) -> bool:
        assert self.fault is not None
        if self.fault.code in (errno.ENOSPC, errno.EDQUOT):
            return kind == CHANGE and name in _NEEDS_ROOM
        return kind == CHANGE or self.fault.kind == LOOK

    def is_torn(self, kind: str) -> bool:
        """Return whether the next call is the one that does half of its work."""
        fault = self.fault
        return fault is not None and fault.torn and not self.reached and (fault.kind, fault.at) == (kind, len(self.calls[kind]))

    # --- guards --------------------------------------------------------------------------------------------------------

    def guard(self, kind: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call with a guard before it."""

        def guarded(*arguments: Any, **options: Any) -> Any:
            code = None if _is_of_others(arguments) else self.code_for(kind, name)
            if code is not None:
                raise _error(code, arguments)
            return call(*arguments, **options)

        return guarded

    def guarded_open(self, call: Callable[..., int]) -> Callable[..., int]:
        """Return `os.open` with a guard; opening to write is a change."""

        def guarded(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            code = self.code_for(CHANGE if flags & _WRITABLE else LOOK, "open")
            if code is not None:
                raise _error(code, (path,))
            return call(path, flags, *arguments, **options)

        return guarded

    def guarded_close(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """Return `os.close` with a guard: what was written may be refused only now (close(2)), and it is closed all the same."""

        def guarded(fd: int) -> None:
            is_written = fcntl_call(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            call(fd)
            code = self.code_for(LOOK, "close") if is_written else None
            if code is not None:
                raise _error(code, ())

        fcntl_call = fcntl.fcntl
        return guarded

    def guarded_write(self, name: str, call: Callable[..., int]) -> Callable[..., int]:
        """Return a write with a guard; one that is torn writes half, and then the process dies or the disk refuses the rest."""

        def guarded(fd: int, content: Any, *offset: int) -> int:
            if self.is_torn(CHANGE):
                code = self.code_for(CHANGE, name)
                count = call(fd, bytes(content)[: len(content) // 2], *offset)
                if not code:
                    os.kill(os.getpid(), signal.SIGKILL)
                return count
            code = self.code_for(CHANGE, name)
            if code is not None:
                raise _error(code, ())
            return call(fd, content, *offset)

        return guarded

    def guarded_ioctl(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `fcntl.ioctl` with a guard; only setting flags and projects is a change."""

        def guarded(fd: int, request: int, *arguments: Any) -> Any:
            code = self.code_for(CHANGE if request in _SETTING else LOOK, "ioctl")
            if code is not None:
                raise _error(code, ())
            return call(fd, request, *arguments)

        return guarded


def _error(code: int, arguments: tuple[Any, ...]) -> OSError:
    return OSError(code, os.strerror(code), _path(arguments))


def _path(arguments: tuple[Any, ...]) -> str | bytes | None:
    return next((argument for argument in arguments if isinstance(argument, str | bytes)), None)


def _is_of_others(arguments: tuple[Any, ...]) -> bool:
    """Return whether a look is at other processes: it is at no disk, and how many there are changes all the time."""
    path = _path(arguments)
    return path is not None and os.fsencode(path).startswith(b"/proc") and not os.fsencode(path).startswith(b"/proc/self/")


class _Library:
    """The C library with guards; its calls tell by -1 and errno."""

    # What `disk.native` calls; anything else has to be put here first.
    _KINDS: ClassVar[dict[str, tuple[str, str]]] = {
        "syncfs": (CHANGE, "syncfs"),
        "renameat2": (CHANGE, "rename"),
        "sync_file_range": (CHANGE, "sync_file_range"),
        "prctl": (LOOK, "prctl"),
        "fallocate": (CHANGE, "fallocate"),
        "statx": (LOOK, "stat"),
        "fstatfs": (LOOK, "fstatvfs"),
    }

    def __init__(self, door: Door, real: Any) -> None:
        for function, (kind, name) in self._KINDS.items():
            setattr(self, function, _guarded_by_errno(door, kind, name, getattr(real, function)))


def _guarded_by_errno(door: Door, kind: str, name: str, call: Callable[..., int]) -> Callable[..., int]:
    """Return a function of the C library with a guard."""

    def guarded(*arguments: Any) -> int:
        code = None if _is_of_others(arguments) else door.code_for(kind, name)
        if code is not None:
            ctypes.set_errno(code)
            return -1
        return call(*arguments)

    return guarded


def _guards(door: Door) -> list[tuple[Any, str, Any]]:
    """Return what stands in for which name of which module."""
    found = [(os, name, door.guard(CHANGE, name, getattr(os, name))) for name in _CHANGES]
    found += [(os, name, door.guard(LOOK, name, getattr(os, name))) for name in _LOOKS]
    found += [(os, name, door.guarded_write(name, getattr(os, name))) for name in ("write", "pwrite")]
    return [
        *found,
        (os, "open", door.guarded_open(os.open)),
        (os, "close", door.guarded_close(os.close)),
        (builtins, "open", door.guard(LOOK, "open", builtins.open)),
        (hashlib, "file_digest", door.guard(LOOK, "read", hashlib.file_digest)),
        (fcntl, "ioctl", door.guarded_ioctl(fcntl.ioctl)),
        (fcntl, "fcntl", door.guard(LOOK, "fcntl", fcntl.fcntl)),
        (fcntl, "flock", door.guard(LOOK, "flock", fcntl.flock)),
        (xattr, "listxattr", door.guard(LOOK, "listxattr", xattr.listxattr)),
        (xattr, "getxattr", door.guard(LOOK, "getxattr", xattr.getxattr)),
        (xattr, "setxattr", door.guard(CHANGE, "setxattr", xattr.setxattr)),
        (xattr, "removexattr", door.guard(CHANGE, "removexattr", xattr.removexattr)),
        (native, "_libc", _Library(door, native._libc)),
        (native, "_syscall", _guarded_by_errno(door, LOOK, "open", native._syscall)),
    ]


@contextmanager
def armed(fault: Fault | None = None) -> Iterator[Door]:
    """Guard every call of the body; yields the door that counts them."""
    door = Door(fault)
    guards = [(module, name, getattr(module, name), guard) for module, name, guard in _guards(door)]
    for module, name, _, guard in guards:
        setattr(module, name, guard)
    try:
        yield door
    finally:
        for module, name, original, _ in guards:
            setattr(module, name, original)
