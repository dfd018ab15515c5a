"""Finding and listing things below a root descriptor without ever following a symbolic link (D7), or touching access times (D6).

Every component of a path is opened on its own with O_NOFOLLOW, so no name and no link can lead out of the root.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}

# A component that is no directory, or a link, means for us: nothing is there.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOKEY)


def _open(name: str, flags: int, folder_fd: int | None) -> int:
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=folder_fd)
    except PermissionError:
        # O_NOATIME is for the owner and root only (open(2)).
        return os.open(name, flags, dir_fd=folder_fd)


def components(path: str) -> list[str]:
    """Split a relative path; ValueError for anything that could climb out."""
    parts = path.split("/") if path else []
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        message = f"not a path below the root: {path!r}"
        raise ValueError(message)
    return parts


@contextmanager
def folder(root_fd: int, path: str) -> Iterator[int]:
    """Open a directory below the root for reading; OSError names the whole path."""
    fd = _open(".", _FOLDER, root_fd)
    try:
        for part in components(path):
            deeper = _open(part, _FOLDER, fd)
            os.close(fd)
            fd = deeper
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    except BaseException:
        os.close(fd)
        raise
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def holder(root_fd: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that holds a path; yields its descriptor and the last component (`""` for the root itself).

    What fails in the body by that name, or by no name, is named by the whole path.
    """
    above, _, name = path.rpartition("/")
    with folder(root_fd, above) as fd:
        try:
            yield fd, name
        except OSError as error:
            said = error.filename
            # What was opened already is named by its descriptor.
            if said is None or isinstance(said, int) or os.fsdecode(said) in (name, f"/proc/self/fd/{fd}/{name}"):
                error.filename = path
            raise


@contextmanager
def regular_file(folder_fd: int, name: str) -> Iterator[int]:
    """Open a regular file for reading; OSError EINVAL when it is anything else. Never blocks on a FIFO or device."""
    fd = _open(name, _FILE, folder_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        yield fd
    finally:
        os.close(fd)


def names(folder_fd: int) -> list[str]:
    """Return the names in an open directory, sorted bytewise."""
    with os.scandir(folder_fd) as listing:
        return sorted((entry.name for entry in listing), key=os.fsencode)


def kind_of(mode: int) -> Kind:
    """Return the kind that a `st_mode` says."""
    return _KINDS[stat.S_IFMT(mode)]


def entry_of(path: str, facts: os.stat_result, labels: Mapping[str, str]) -> Entry:
    """Return a stat result in the words of the model."""
    return Entry(
        path=path,
        kind=kind_of(facts.st_mode),
        size=facts.st_size,
        allocated=facts.st_blocks * 512,
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        mtime_ns=facts.st_mtime_ns,
        atime_ns=facts.st_atime_ns,
        identity=facts.st_ino,
        ctime_ns=facts.st_ctime_ns,
        links=facts.st_nlink,
        labels=labels,
    )


def walk(top_fd: int) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """Walk below an open directory, parents before children, sorted.

    Yields:
        (path relative to the top, descriptor of the holding directory, name, lstat). The descriptor is valid until the next
        step. Depth costs no descriptors, so a very deep tree cannot exhaust them.
    """
    pending = [""]
    while pending:
        where = pending.pop()
        deeper = []
        with folder(top_fd, where) as fd:
            for name in names(fd):
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                path = f"{where}/{name}" if where else name
                yield path, fd, name, facts
                if stat.S_ISDIR(facts.st_mode):
                    deeper.append(path)
        pending.extend(reversed(deeper))
