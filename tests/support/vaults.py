"""Real vaults for tests: a loop-mounted ext4 with an fscrypt policy (version 2, raw key) set by ioctl. Needs root.

Numbers are from `linux/fscrypt.h`.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SET_POLICY = 0x800C6613
_ADD_KEY = 0xC0506617
_REMOVE_KEY = 0xC0406618
_KEY = bytes(range(64))
# xfs and btrfs have a smallest size; an image is sparse, so it costs nothing.
MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "encrypt"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


def _ioctl(path: str, number: int, buffer: bytearray) -> bytearray:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, number, buffer, True)
    finally:
        os.close(fd)
    return buffer


def add_key(mount: str, key: bytes = _KEY) -> bytes:
    """Add a key to a mounted file system; returns its identifier."""
    buffer = bytearray(struct.pack("=II32sII32s", 2, 0, b"", len(key), 0, b"") + key)
    return bytes(_ioctl(mount, _ADD_KEY, buffer)[8:24])


def encrypt(directory: str, identifier: bytes) -> None:
    """Put an empty directory behind a key: AES-256-XTS for contents, AES-256-CTS for names, names padded to 32."""
    _ioctl(directory, _SET_POLICY, bytearray(struct.pack("=BBBBB3s16s", 2, 1, 4, 3, 0, b"", identifier)))


def lock(mount: str, identifier: bytes) -> None:
    """Take the key away, which locks every directory behind it."""
    subprocess.run(["sync", "-f", mount], check=True)
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
        caches.write("2")
    _ioctl(mount, _REMOVE_KEY, bytearray(struct.pack("=II32sI20s", 2, 0, identifier + bytes(16), 0, b"")))


@contextmanager
def mounted(image: str, directory: str, *, size: str = "64M", kind: str = "ext4") -> Iterator[str]:
    """Make a file system (one of `MAKERS`) in a new image and mount it on a directory."""
    subprocess.run(["truncate", "-s", size if kind == "ext4" else "320M", image], check=True)
    subprocess.run([*MAKERS[kind], image], check=True)
    os.makedirs(directory, exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    try:
        if kind == "ext4":
            os.rmdir(f"{directory}/lost+found")
        yield directory
    finally:
        subprocess.run(["umount", directory], check=False)
        if os.path.ismount(directory):
            subprocess.run(["umount", "-l", directory], check=True)
        os.unlink(image)
