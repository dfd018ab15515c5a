"""System calls that the standard library does not offer: `renameat2`, `syncfs`, and the ioctls for flags and encryption policies.

Numbers are from `linux/fs.h` and `linux/fscrypt.h`. Imported only when there is work to do.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_STATX_INO = 0x100
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IOC_GET_ENCRYPTION_POLICY_EX = 0xC0096616
_FS_IOC_GET_ENCRYPTION_KEY_STATUS = 0xC080661A
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IMMUTABLE = 0x10
_FS_APPEND = 0x20
_KEY_BY_IDENTIFIER = 2
_KEY_PRESENT = 2
_POLICY_V2 = 2
_PROJECT_IS_INHERITED = 0x200
_NO_POLICY = (errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

_libc = ctypes.CDLL(None, use_errno=True)


def _raise(path: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def rename_exclusively(source_fd: int, source: str, target_fd: int, target: str) -> None:
    """Rename without replacing anything; FileExistsError when the target exists (renameat2(2), RENAME_NOREPLACE)."""
    # Some C libraries lack the function, some file systems the flag.
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        if renameat2(source_fd, os.fsencode(source), target_fd, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            _raise(target)
    # Under the lock nobody else of ours creates the name in between.
    try:
        os.stat(target, dir_fd=target_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)


def sync_filesystem(fd: int, path: str) -> None:
    """Write back everything of the file system that holds a descriptor (syncfs(2); reports errors since Linux 5.8)."""
    if _libc.syncfs(fd) != 0:
        _raise(path)


def inode_of(path: str) -> tuple[int, int]:
    """Return device and inode of an absolute path, links followed, without waiting for any server that holds it (statx(2))."""
    statx = getattr(_libc, "statx", None)
    if statx is None:
        facts = os.stat(path)
        return facts.st_dev, facts.st_ino
    buffer = ctypes.create_string_buffer(256)
    if statx(_AT_FDCWD, os.fsencode(path), _AT_STATX_DONT_SYNC, _STATX_INO, buffer) != 0:
        _raise(path)
    inode, major, minor = struct.unpack_from("=32xQ96xII", buffer)
    return os.makedev(major, minor), inode


def has_fixed_flag(fd: int) -> bool:
    """Return whether the immutable or append-only flag is set (FS_IOC_GETFLAGS)."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, buffer)
    except OSError:
        return False
    flags: int = struct.unpack("=Q", buffer)[0]
    return bool(flags & (_FS_IMMUTABLE | _FS_APPEND))


def clear_fixed_flag(fd: int) -> None:
    """Clear the immutable and append-only flags (FS_IOC_SETFLAGS)."""
    buffer = bytearray(8)
    fcntl.ioctl(fd, _FS_IOC_GETFLAGS, buffer)
    flags: int = struct.unpack("=Q", buffer)[0]
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("=Q", flags & ~(_FS_IMMUTABLE | _FS_APPEND)))


def inherited_project(fd: int) -> int | None:
    """Return the quota project that a directory hands on to what is made in it, None when it hands on none.

    Into such a directory only entries of the same project can be renamed, everything else is refused with EXDEV
    (`struct fsxattr` in `linux/fs.h`; ext4 and xfs).
    """
    buffer = bytearray(28)
    try:
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer)
    except OSError:
        return None
    flags, project = struct.unpack_from("=I8xI", buffer)
    return project if flags & _PROJECT_IS_INHERITED else None


def encryption_policy(fd: int) -> bytes:
    """Return the raw encryption policy of an open directory or file, empty when there is none."""
    buffer = bytearray(struct.pack("=Q24s", 24, b""))
    try:
        fcntl.ioctl(fd, _FS_IOC_GET_ENCRYPTION_POLICY_EX, buffer)
    except OSError as error:
        if error.errno in _NO_POLICY:
            return b""
        raise
    size: int = struct.unpack_from("=Q", buffer)[0]
    return bytes(buffer[8 : 8 + size])


def has_key(fd: int, policy: bytes) -> bool | None:
    """Return whether the key of a version 2 policy is present; None for version 1, whose keys the kernel does not tell."""
    if policy[0] != _POLICY_V2:
        return None
    specifier = struct.pack("=II16s16s24s", _KEY_BY_IDENTIFIER, 0, policy[8:24], b"", b"")
    buffer = bytearray(specifier + bytes(128 - len(specifier)))
    fcntl.ioctl(fd, _FS_IOC_GET_ENCRYPTION_KEY_STATUS, buffer)
    status: int = struct.unpack_from("=I", buffer, 64)[0]
    return status == _KEY_PRESENT
