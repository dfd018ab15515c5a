"""System calls that the standard library lacks: `openat2`, `renameat2`, `syncfs`, ioctls for flags, projects and encryption.

Numbers are from `linux/fs.h`, `linux/openat2.h` and `linux/fscrypt.h`. Imported only when there is work to do.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys

_OPENAT2 = 437
# Below the directory, and through no link of any kind (openat2(2): RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS).
_RESOLVE = 0x08 | 0x04 | 0x02
_RENAME_NOREPLACE = 1
_PR_SET_PDEATHSIG = 1
# `asm/unistd.h` of each architecture, and `linux/keyctl.h`.
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "armv7l": 311}
_KEYCTL_LINK = 8
_SESSION_KEYRING, _USER_KEYRING = -3, -4
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_TYPE = 0x1
_STATX_INO = 0x100
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IOC_GET_ENCRYPTION_POLICY_EX = 0xC0096616
_FS_IOC_GET_ENCRYPTION_KEY_STATUS = 0xC080661A
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_IMMUTABLE = 0x10
_FS_APPEND = 0x20
# statx(2) has the same numbers for them.
_FIXED = _FS_IMMUTABLE | _FS_APPEND
_KEY_BY_IDENTIFIER = 2
_KEY_PRESENT = 2
_POLICY_V2 = 2
PROJECT_IS_INHERITED = 0x200
_PUNCH_HOLE = 0x01 | 0x02
_NO_POLICY = (errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)

# What says that a file cannot be shared in part with another one: by the file system, by where they lie, by what they are.
_NOT_SHARED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.ENOSYS)

_libc = ctypes.CDLL(None, use_errno=True)
if hasattr(_libc, "sync_file_range"):
    _libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def _raise(path: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def open_beneath(folder_fd: int, path: str, flags: int) -> int | None:
    """Open a path below a directory in one call that follows no link; OSError where nothing can be reached by it.

    Returns None for every other refusal: kernels before 5.6, filters that do not know the call, and what openat(2) by component
    can do or tell better.
    """
    how = struct.pack("=QQQ", flags, 0, _RESOLVE)
    fd = _syscall(_OPENAT2, folder_fd, os.fsencode(path), how, len(how))
    if fd >= 0:
        return int(fd)
    if ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        _raise(path)
    return None


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


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free the blocks of a part of a file, which reads as zeros from then on (fallocate(2), FALLOC_FL_PUNCH_HOLE)."""
    code = _libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length))
    if code != 0:
        _raise(str(fd))


def write_back(fd: int, start: int, size: int) -> None:
    """Begin to write part of an open file back, without waiting for the disk: a hint that makes nothing durable.

    Encrypted files are encrypted here, in the calling process (sync_file_range(2)). OSError where the disk refused content.
    """
    sync_file_range = getattr(_libc, "sync_file_range", None)
    if sync_file_range is None or sync_file_range(fd, start, size, _SYNC_FILE_RANGE_WRITE) == 0:
        return
    # It cannot be hinted at here; anything else says that content is lost.
    if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM):
        _raise("")


def share_content(source_fd: int, target_fd: int) -> bool:
    """Let an empty file share all content with another one; False where the file system cannot (ioctl_ficlone(2))."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno in _NOT_SHARED:
            return False
        raise
    return True


def die_with_parent() -> None:
    """Have this process killed as soon as the one that forked it is gone (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def reach_user_keys() -> None:
    """Let the keys of this user's keyring be found (keyctl(2), KEYCTL_LINK): a service has a keyring of its own, without them."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(*(ctypes.c_long(value) for value in (number, _KEYCTL_LINK, _USER_KEYRING, _SESSION_KEYRING)))


def give_back() -> None:
    """Let the C library give back to the kernel what it holds but nobody uses (malloc_trim(3)), where it can."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


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


def inode_flags(fd: int) -> int:
    """Return the inode flags of an open file or directory, 0 where the file system has none (FS_IOC_GETFLAGS)."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, buffer)
    except OSError:
        return 0
    flags: int = struct.unpack("=Q", buffer)[0]
    return flags


def set_inode_flags(fd: int, flags: int) -> None:
    """Set the inode flags of an open file or directory (FS_IOC_SETFLAGS)."""
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("=Q", flags))


def has_fixed_flag(fd: int) -> bool:
    """Return whether the immutable or append-only flag is set."""
    return forbids_changes(inode_flags(fd))


def forbids_changes(flags: int) -> bool:
    """Return whether the immutable or append-only flag is among inode flags."""
    return bool(flags & (_FS_IMMUTABLE | _FS_APPEND))


def is_fixed(folder_fd: int, name: str) -> bool | None:
    """Return what `has_fixed_flag` says of an entry of an open directory, without opening it (statx(2)).

    None where the file system does not tell. What is neither a file nor a directory has no such flag.
    """
    statx, buffer = getattr(_libc, "statx", None), ctypes.create_string_buffer(256)
    if statx is None or statx(folder_fd, os.fsencode(name), _AT_SYMLINK_NOFOLLOW, _STATX_TYPE, buffer) != 0:
        return None
    attributes, mode, known = struct.unpack_from("=8xQ12xH26xQ", buffer)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False
    return bool(attributes & _FIXED) if known & _FIXED == _FIXED else None


def clear_fixed_flag(fd: int) -> None:
    """Clear the immutable and append-only flags."""
    flags = inode_flags(fd)
    if flags & (_FS_IMMUTABLE | _FS_APPEND):
        set_inode_flags(fd, flags & ~(_FS_IMMUTABLE | _FS_APPEND))


def extended_flags(fd: int) -> tuple[int, int]:
    """Return extended flags and quota project of an open file or directory, (0, 0) where there are none (`struct fsxattr`)."""
    buffer = bytearray(28)
    try:
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer)
    except OSError:
        return 0, 0
    flags, project = struct.unpack_from("=I8xI", buffer)
    return flags, project


def set_project(fd: int, project: int, *, handed_on: bool) -> None:
    """Set the quota project of an open file or directory, and whether what is made in it gets the same (FS_IOC_FSSETXATTR)."""
    buffer = bytearray(28)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer)
    flags: int = struct.unpack_from("=I", buffer)[0]
    flags = flags & ~PROJECT_IS_INHERITED | (PROJECT_IS_INHERITED if handed_on else 0)
    struct.pack_into("=I", buffer, 0, flags)
    struct.pack_into("=I", buffer, 12, project)
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, buffer)


def inherited_project(fd: int) -> int | None:
    """Return the quota project that a directory hands on to what is made in it, None when it hands on none.

    Into such a directory only entries of the same project can be renamed, everything else is refused with EXDEV (ext4 and xfs).
    """
    flags, project = extended_flags(fd)
    return project if flags & PROJECT_IS_INHERITED else None


def filesystem_type(fd: int) -> int:
    """Return the magic number of the file system that holds a descriptor (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


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
