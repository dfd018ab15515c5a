"""No call that changes something gets past the guards of `tests.support.door`: what it counts is what strace sees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.durability.small_disks import PACKS, place_in, small_disks

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
# What changes nothing on any disk. Whatever is not named here has to be guarded.
HARMLESS = frozenset(
    [
        "access",
        "alarm",
        "arch_prctl",
        "brk",
        "clock_gettime",
        "clock_nanosleep",
        "close",
        "dup",
        "dup2",
        "dup3",
        "epoll_create1",
        "execve",
        "exit",
        "exit_group",
        "faccessat",
        "faccessat2",
        "fcntl",
        "fgetxattr",
        "flistxattr",
        "flock",
        "fstat",
        "fstatfs",
        "futex",
        "getcwd",
        "getdents64",
        "getegid",
        "geteuid",
        "getgid",
        "getpid",
        "getppid",
        "getrandom",
        "getrlimit",
        "gettid",
        "gettimeofday",
        "getuid",
        "getxattr",
        "lgetxattr",
        "listxattr",
        "llistxattr",
        "lseek",
        "lstat",
        "madvise",
        "membarrier",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "newfstatat",
        "poll",
        "ppoll",
        "prctl",
        "pread64",
        "preadv",
        "preadv2",
        "prlimit64",
        "read",
        "readlink",
        "readlinkat",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "sched_yield",
        "set_robust_list",
        "set_tid_address",
        "sigaltstack",
        "stat",
        "statfs",
        "statx",
        "sysinfo",
        "time",
        "uname",
    ],
)
# Kernel names of what the guards know by the names of Python.
NAMES = {
    "mkdirat": "mkdir",
    "symlinkat": "symlink",
    "linkat": "link",
    "mknodat": "mknod",
    "renameat": "rename",
    "renameat2": "rename",
    "fchownat": "chown",
    "lchown": "chown",
    "fchmodat": "chmod",
    "fchmodat2": "chmod",
    "utimensat": "utime",
    "pwrite64": "pwrite",
    "lsetxattr": "setxattr",
    "lremovexattr": "removexattr",
    "openat": "open",
    "openat2": "open",
}
STORIES = {
    "run and rollback": ((), ("rollback",)),
    "trial and confirm": (("--trial",), ("confirm",)),
    "rollback of a trial": (("--trial",), ("rollback",)),
}


def _seen(trace: Path) -> Iterator[str]:
    """Yield the calls of a trace that change something, by the names that the guards have."""
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"(?:\d+ +)?(\w+)\((.*)", line)
        if match is None or _is_harmless(*match.groups()):
            continue
        name, rest = match.groups()
        if name == "unlinkat":
            name = "rmdir" if "AT_REMOVEDIR" in rest else "unlink"
        yield NAMES.get(name, name)


def _is_harmless(name: str, rest: str) -> bool:
    if name in ("open", "openat", "openat2"):
        return not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest)
    if name == "ioctl":
        return "FS_IOC_SETFLAGS" not in rest and "FS_IOC_FSSETXATTR" not in rest and "FICLONE" not in rest
    if name == "write":
        return re.match(r"[12],", rest) is not None
    return name in HARMLESS


@pytest.mark.parametrize("story", list(STORIES))
@pytest.mark.parametrize("disk", ["everything plain", "everything fscrypt"])
def test_guards_count_what_strace_sees(disk: str, story: str, tmp_path: Path) -> None:
    """Every change that the kernel sees of a start was counted at the door, in the same order, and nothing else was."""
    trace = tmp_path / "trace"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "UPGRADECONVERTER_PACK_ROOT": str(PACKS)}
    small = small_disks()[disk]
    with place_in(tmp_path, encrypted=small.vault == "fscrypt") as place, place.disk(small) as top:
        for words in STORIES[story]:
            program = [sys.executable, "-m", "tests.durability.door_shown", *words, "-p", top, *small.words]
            command = ["strace", "-f", "-qq", "-s", "8", "-o", str(trace), *program]
            done = subprocess.run(command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
            assert done.returncode in (0, 1), done.stdout + done.stderr
            counted = json.loads(done.stdout.splitlines()[-1])
            assert len(counted) > 50, done.stdout
            assert list(_seen(trace)) == counted
