"""What "behind the vault" means: encryption policy, key present or not, and the identity of a domain. Looks only."""

from __future__ import annotations

import errno
import os

from upgradeconverter.disk import native


def domain_key(fd: int) -> tuple[str, bool]:
    """Return the identity of the domain of an open directory, and whether a policy covers it."""
    policy, project = native.encryption_policy(fd), native.inherited_project(fd)
    return f"{mount_id(fd)}:{os.fstat(fd).st_dev}:{policy.hex()}:{'' if project is None else project}", bool(policy)


def state(fd: int) -> str:
    """Return `locked`, `read-only`, `usable` or `plain` for an open vault directory."""
    policy = native.encryption_policy(fd)
    if policy and not is_unlocked(fd, policy):
        return "locked"
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return "read-only"
    return "usable" if policy else "plain"


def mount_id(fd: int) -> str:
    """Return the mount that an open directory lies on (proc(5), fdinfo); bind mounts of one device differ."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        for text in lines:
            if text.startswith("mnt_id:"):
                return text.split()[1]
    return ""


def is_unlocked(fd: int, policy: bytes) -> bool:
    """Return whether the key of a policy is there, so that names and content behind it can be used."""
    known = native.has_key(fd, policy)
    if known is not None:
        return known
    # Version 1 policies keep keys where the kernel does not tell. A locked directory refuses even an unnamed file (ENOKEY).
    native.reach_user_keys()
    try:
        os.close(os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
    except OSError as error:
        return error.errno != errno.ENOKEY
    return True
