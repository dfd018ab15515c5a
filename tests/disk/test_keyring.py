"""A vault with a policy of version 1, whose key lies in the keyring of root's user, is usable for a service too. Needs root."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import vaults
from tests.support.starting import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

# linux/keyctl.h, linux/fscrypt.h, asm/unistd_64.h
_ADD_KEY, _KEYCTL, _UNLINK, _JOIN = 248, 250, 9, 1
_USER = -4
_DESCRIPTOR = b"\x01\x02\x03\x04\x05\x06\x07\x08"
LOOK = f"""
import ctypes, os, sys
from upgradeconverter.disk import native, vault
ctypes.CDLL(None).syscall({_KEYCTL}, {_JOIN}, None)
if sys.argv[2] == "bare":
    native.reach_user_keys = lambda: None
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print(vault.state(fd))
"""


@pytest.fixture
def old_vault(tmp_path: Path) -> Iterator[str]:
    """Return a vault of version 1, with its key where older tools put it."""
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    payload = struct.pack("=I64sI", 0, bytes(range(64)), 64)
    name = b"fscrypt:" + _DESCRIPTOR.hex().encode()
    with vaults.mounted(str(tmp_path / "image"), str(tmp_path / "mount")) as top:
        os.mkdir(f"{top}/vault")
        fd = os.open(f"{top}/vault", os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(fd, vaults._SET_POLICY, bytearray(struct.pack("=BBBB8s", 0, 1, 4, 0, _DESCRIPTOR)), True)
        os.close(fd)
        key = syscall(_ADD_KEY, b"logon", name, payload, len(payload), _USER)
        assert key > 0
        yield f"{top}/vault"
        syscall(_KEYCTL, _UNLINK, key, _USER)


@pytest.mark.parametrize(("how", "state"), [("whole", "usable"), ("bare", "locked")])
def test_user_keys_are_reached(old_vault: str, how: str, state: str) -> None:
    """A process with a session keyring of its own, as systemd gives to services, finds the key; without that step it does not."""
    command = [sys.executable, "-c", LOOK, old_vault, how]
    told = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    assert told.strip() == state
