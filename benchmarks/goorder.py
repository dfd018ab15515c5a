"""The order of work of EVE's own converter, in Go, enacted here: a copy with a sync of each file, no holes, no attributes.

    python -I -S goorder.py copy|merge INTO SOURCE...

`copy` is its way with volumes and verified files: a file to a `.tmp` name, fsync, chmod, rename, the source goes; a directory
straight to its name, file by file with an fsync each, links passed over, then the source goes. It copies also where a rename
would do. `merge` is its way with the containerd store: directories made anew, each file renamed, copied as above where that
crosses a boundary, each link made anew. Only the order of work is Go's; what Python adds are some microseconds for each file,
beside the fsync. No directory is synced and nothing at the end.
"""

import errno
import os
import stat
import sys

_BUFFER = 32 << 10
_AT_ONCE = 1 << 30


def _copy_file(source: str, target: str) -> None:
    with open(source, "rb", buffering=0) as old, open(target, "wb", buffering=0) as new:
        _copy_bytes(old.fileno(), new.fileno())
        os.fsync(new.fileno())
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))


def _copy_bytes(old: int, new: int) -> None:
    """As io.Copy does between two files: in the kernel where it can, else through a small buffer; holes become zeros."""
    try:
        while os.copy_file_range(old, new, _AT_ONCE):
            pass
    except OSError as problem:
        if problem.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while data := os.read(old, _BUFFER):
            os.write(new, data)


def _copy_directory(source: str, target: str) -> None:
    os.mkdir(target, stat.S_IMODE(os.stat(source).st_mode))
    for name in sorted(os.listdir(source)):
        old, new = f"{source}/{name}", f"{target}/{name}"
        if os.path.islink(old):
            continue
        (_copy_directory if os.path.isdir(old) else _copy_file)(old, new)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _remove(f"{path}/{name}")
        os.rmdir(path)
    else:
        os.unlink(path)


def copy(source: str, target: str) -> None:
    """Do one volume or verified file."""
    if os.path.isdir(source):
        _copy_directory(source, target)
        _remove(source)
    else:
        _copy_file(source, f"{target}.tmp")
        os.rename(f"{target}.tmp", target)
        os.unlink(source)


def merge(source: str, target: str) -> None:
    """Do the containerd store."""
    os.makedirs(target, stat.S_IMODE(os.stat(source).st_mode), exist_ok=True)
    for name in sorted(os.listdir(source)):
        old, new = f"{source}/{name}", f"{target}/{name}"
        if os.path.islink(old):
            os.symlink(os.readlink(old), new)
            os.unlink(old)
        elif os.path.isdir(old):
            merge(old, new)
        else:
            _move(old, new)
    os.rmdir(source)


def _move(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except OSError as problem:
        if problem.errno != errno.EXDEV:
            raise
        _copy_file(old, new)
        os.unlink(old)


if __name__ == "__main__":
    work = {"copy": copy, "merge": merge}[sys.argv[1]]
    for each in sys.argv[3:]:
        work(each, f"{sys.argv[2]}/{os.path.basename(each)}")
