"""Owner, mode, extended attributes (ACLs and capabilities among them) and times: capture, apply, compare.

The one door to the `xattr` package. Paths go through `/proc/self/fd` to the directory, and no call follows the name in it, so
a symbolic link is never followed and symlinks and device nodes can have attributes too (xattr(7)).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from upgradeconverter.model.entry import XATTR_PREFIX

if TYPE_CHECKING:
    from upgradeconverter.model.plan import Attributes

# What the kernel keeps for itself and refuses to have set.
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_CAPABILITY = "security.capability"
NOT_OURS = (b"system.nfs4_acl", b"security.evm", b"security.ima")


def gives_away() -> bool:
    """Return whether this process can make others the owners of what it makes."""
    return os.geteuid() == 0


def _place(folder_fd: int, name: str) -> bytes:
    return os.fsencode(f"/proc/self/fd/{folder_fd}/{name}" if name else f"/proc/self/fd/{folder_fd}")


def read_xattrs(folder_fd: int, name: str) -> dict[bytes, bytes]:
    """Return all extended attributes of an entry, without following it; empty where none are supported."""
    import xattr

    options = xattr.XATTR_NOFOLLOW if name else 0
    place = _place(folder_fd, name)
    try:
        names = [os.fsencode(found) for found in xattr.listxattr(place, options)]
        return {key: xattr.getxattr(place, os.fsdecode(key), options) for key in names if key not in NOT_OURS}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
            return {}
        raise


def carry(source_fd: int, target_fd: int, facts: os.stat_result) -> None:
    """Give an open file or directory owner, mode, xattrs and times of another one, of which `facts` are known.

    Owner first: fchown(2) drops setuid bits and capabilities.
    """
    there, mode = os.fstat(target_fd), stat.S_IMODE(facts.st_mode)
    is_given = (there.st_uid, there.st_gid) != (facts.st_uid, facts.st_gid)
    if is_given:
        os.fchown(target_fd, facts.st_uid, facts.st_gid)
    if is_given or stat.S_IMODE(there.st_mode) != mode:
        os.fchmod(target_fd, mode)
    if _has_xattrs(source_fd):
        write_xattrs(target_fd, "", read_xattrs(source_fd, ""))
    os.utime(target_fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _has_xattrs(fd: int) -> bool:
    try:
        return bool(os.listxattr(fd))
    except OSError:
        # What is wrong with it is told where they are read.
        return True


def foreign_xattrs(folder_fd: int, name: str) -> dict[bytes, bytes]:
    """Return the extended attributes of an entry that are not our own labels."""
    prefix = XATTR_PREFIX.encode()
    return {key: value for key, value in read_xattrs(folder_fd, name).items() if not key.startswith(prefix)}


def capability(fd: int) -> bytes:
    """Return the capabilities of an open file as the file system keeps them, empty where it has none (capabilities(7))."""
    import xattr

    try:
        return bytes(xattr.getxattr(fd, _CAPABILITY))
    except OSError:
        return b""


def set_capability(fd: int, value: bytes) -> None:
    """Give an open file the capabilities that another has."""
    import xattr

    xattr.setxattr(fd, _CAPABILITY, value)


def remove_acls(folder_fd: int, name: str) -> None:
    """Take away the ACLs that a new directory inherits from the one around it (acl(5)): it gets what is declared, no more."""
    import xattr

    options = xattr.XATTR_NOFOLLOW if name else 0
    for key in _ACLS:
        try:
            xattr.removexattr(_place(folder_fd, name), key, options)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise


def read_labels(folder_fd: int, name: str) -> dict[str, str]:
    """Return our own attributes of an entry by name without the prefix."""
    try:
        # Most have none, and to say so is quickest in this way.
        if not any(each.startswith(XATTR_PREFIX) for each in os.listxattr(_place(folder_fd, name), follow_symlinks=not name)):
            return {}
    except OSError:
        # What is wrong with it is told where they are read.
        pass
    prefix = XATTR_PREFIX.encode()
    found = read_xattrs(folder_fd, name)
    return {
        key.removeprefix(prefix).decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in found.items()
        if key.startswith(prefix)
    }


def write_xattrs(folder_fd: int, name: str, attributes: dict[bytes, bytes]) -> None:
    """Set extended attributes of an entry, without following it."""
    import xattr

    options = xattr.XATTR_NOFOLLOW if name else 0
    for key, value in sorted(attributes.items()):
        try:
            xattr.setxattr(_place(folder_fd, name), os.fsdecode(key), value, options)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # setxattr(2): there is no room for it at this file, however much there is on the file system.
            raise OSError(errno.E2BIG, f"its extended attribute {os.fsdecode(key)} does not fit there", name) from error


def write_labels(folder_fd: int, name: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Set our own attributes; an empty value removes one."""
    import xattr

    options = xattr.XATTR_NOFOLLOW if name else 0
    for label, value in labels:
        if value:
            xattr.setxattr(_place(folder_fd, name), XATTR_PREFIX + label, value.encode(), options)
            continue
        try:
            xattr.removexattr(_place(folder_fd, name), XATTR_PREFIX + label, options)
        except OSError as error:
            # What is neither a file nor a directory has no such attributes, and says EPERM (xattr(7)).
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise


def apply(folder_fd: int, name: str, attributes: Attributes) -> None:
    """Give an existing entry owner, then mode, then labels, then times; None leaves what is there. `""` is the folder itself."""
    where: int | str = name or folder_fd
    dir_fd = folder_fd if name else None
    before = os.stat(where, dir_fd=dir_fd, follow_symlinks=False) if name else os.fstat(folder_fd)
    uid = before.st_uid if attributes.uid is None else attributes.uid
    gid = before.st_gid if attributes.gid is None else attributes.gid
    mode = before.st_mode & 0o7777 if attributes.mode is None else attributes.mode
    if not gives_away():
        # Only root can give things away (chown(2)); what somebody else converts stays theirs, and `verify` says so.
        uid, gid = before.st_uid, before.st_gid
    if (uid, gid) != (before.st_uid, before.st_gid):
        _chown(folder_fd, name, uid, gid)
    if not mode & stat.S_IWUSR:
        # Others than root can label only what they can write to (xattr(7)).
        write_labels(folder_fd, name, attributes.labels)
    # chown clears setuid and setgid, so the mode comes after it.
    if mode != before.st_mode & 0o7777 or (uid, gid) != (before.st_uid, before.st_gid):
        _chmod(folder_fd, name, mode)
    if mode & stat.S_IWUSR:
        write_labels(folder_fd, name, attributes.labels)
    if attributes.mtime_ns is not None or attributes.atime_ns is not None:
        atime = before.st_atime_ns if attributes.atime_ns is None else attributes.atime_ns
        mtime = before.st_mtime_ns if attributes.mtime_ns is None else attributes.mtime_ns
        if name:
            os.utime(name, ns=(atime, mtime), dir_fd=folder_fd, follow_symlinks=False)
        else:
            os.utime(folder_fd, ns=(atime, mtime))


def _chown(folder_fd: int, name: str, uid: int, gid: int) -> None:
    """Change the owner, which alone would take away a file's capabilities (capabilities(7))."""
    import xattr

    if not name:
        os.fchown(folder_fd, uid, gid)
        return
    try:
        able = xattr.getxattr(_place(folder_fd, name), _CAPABILITY, xattr.XATTR_NOFOLLOW)
    except OSError:
        able = None
    os.chown(name, uid, gid, dir_fd=folder_fd, follow_symlinks=False)
    if able is not None:
        write_xattrs(folder_fd, name, {_CAPABILITY.encode(): able})


def _chmod(folder_fd: int, name: str, mode: int) -> None:
    """Change the mode of what has that name, and of nothing that a link put there since leads to."""
    if not name:
        os.fchmod(folder_fd, mode)
        return
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
