"""Giving up for good what a start does not need of root's power (capabilities(7)), and any way to get it back.

Must not know commands or phases. The numbers are those of `linux/capability.h` and `linux/prctl.h`.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

_VERSION = 0x20080522
_WORDS = 2
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


class Capability(IntEnum):
    """What root may do and the program has a use for."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    LINUX_IMMUTABLE = 9
    SYS_ADMIN = 21
    MKNOD = 27
    LEASE = 28
    SETFCAP = 31


# To look: directories and files of all owners; who has a file open; the attributes named trusted.*.
LOOKING = frozenset({Capability.DAC_READ_SEARCH, Capability.LEASE, Capability.SYS_ADMIN})
# To move state: files keep their owners, modes and times, and what was closed to everybody stays so.
MOVING = frozenset(
    {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.DAC_READ_SEARCH,
        Capability.FOWNER,
        Capability.FSETID,
        Capability.LEASE,
    }
)
# To carry over what containers' trees may hold: device nodes, file capabilities, immutable files, attributes named trusted.*.
CARRYING = MOVING | {Capability.MKNOD, Capability.SETFCAP, Capability.LINUX_IMMUTABLE, Capability.SYS_ADMIN}

_libc = ctypes.CDLL(None, use_errno=True)


def keep_only(wanted: frozenset[Capability]) -> None:
    """Give up all other capabilities; those that are not there stay so. What the kernel refuses stays as it was."""
    # Nothing that is started gets more, and nobody may look into the memory of a process that reads what others may not.
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    sets = (ctypes.c_uint32 * (3 * _WORDS))()
    if _libc.capget(header, sets) != 0:
        return
    mask = sum(1 << number for number in wanted)
    for word in range(_WORDS):
        effective, permitted, inheritable = (3 * word + place for place in range(3))
        sets[effective] &= (mask >> (32 * word)) & 0xFFFFFFFF
        sets[permitted] &= (mask >> (32 * word)) & 0xFFFFFFFF
        sets[inheritable] = 0
    _libc.capset(header, sets)
