"""A small old EVE disk in any directory, without root, and the promises that hold after every command on it.

Two applications, a virtual machine with an image in `img` and a container in `runx/pods/prepared`, and one verified file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

import upgradeconverter
from migrations.eve.media_types import LAYER, escaped
from tests.packs.eve_words import APP, OTHER_APP, SHA1, SHA2, V1, V2, app, device, drive, ref, response, volume
from tests.support.disktree import capture
from tests.support.dying import ProcessDeathError
from tests.support.running import run
from upgradeconverter.disk.posix import PosixDisk
from upgradeconverter.errors import EXIT_STATUSES
from upgradeconverter.journal.log import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upgradeconverter.journal.record import RecordKind

SCHEMA: dict[str, Any] = json.loads((Path(upgradeconverter.__file__).parent / "schema.json").read_text(encoding="utf-8"))
CONFIG = response(
    device(
        app([drive(SHA1)], [ref(V1)]),
        app([drive(SHA2, "CONTAINER")], [ref(V2)], uuid=OTHER_APP),
        volumes=[volume(V1), volume(V2)],
    ),
)
# A disk image, as far as its beginning tells, so that its media type is known.
VERIFIED = b"QFI\xfbverified content"
DIGEST = hashlib.sha256(VERIFIED).hexdigest()
IMAGE = f"img/{SHA1}-{APP}.qcow2"
PREPARED = f"runx/pods/prepared/{SHA2}-{OTHER_APP}"
VERIFIED_FOLDER = f"downloads/appImg.obj/verified/{DIGEST}"
TARGETS = (f"vault/volumes/{V1}#0.qcow2", f"vault/volumes/{V2}#0.container", f"vault/verifier/verified/{DIGEST}.{escaped(LAYER)}")
ENGINE = ".upgradeconverter"
TIME = 1_594_000_000_000_000_000


def make_disk(top: Path, config: bytes = CONFIG) -> str:
    """Build the disk in a directory that does not exist; all its times are long ago."""
    write(top / "checkpoint/lastconfig", config)
    write(top / IMAGE, b"image of a virtual machine")
    write(top / PREPARED / "rootfs/etc/hostname", b"container\n")
    os.symlink("/etc", top / PREPARED / "rootfs/link")
    write(top / VERIFIED_FOLDER / "name of the download", VERIFIED)
    (top / "downloads/baseOs.obj/verified").mkdir(parents=True)
    (top / "vault").mkdir(mode=0o700)
    set_times(top)
    return str(top)


def write(path: Path, content: bytes) -> None:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def append(path: Path, text: bytes) -> None:
    """Let one of the systems go on with a file."""
    with path.open("ab") as file:
        file.write(text)


def left(document: dict[str, Any]) -> dict[str, str]:
    """Return the reason of everything that a report names as left alone or set aside, by its path."""
    return {skip["path"]: skip["reason"] for skip in document["skipped"]}


def set_times(top: Path) -> None:
    """Set every time below a directory to the same moment, so that going back can be compared to the nanosecond."""
    for where, folders, files in os.walk(os.fsencode(top), topdown=False):
        for name in (*folders, *files):
            os.utime(os.path.join(where, name), ns=(TIME, TIME), follow_symlinks=False)
    os.utime(top, ns=(TIME, TIME))


@contextmanager
def unsynced() -> Iterator[None]:
    """Leave out all syncs: where only the outcome counts they would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda _: None)
        patch.setattr("upgradeconverter.disk.native.sync_filesystem", lambda *_: None)
        yield


@dataclass(slots=True)
class FakeVault:
    """An encrypted vault as far as the engine can tell; its key can be taken away, and so can write access."""

    locked: bool = False
    read_only: bool = False


@contextmanager
def fake_vault() -> Iterator[FakeVault]:
    """Let `vault` be a domain of its own: what moves there is copied, and it can be locked."""
    state = FakeVault()
    real = PosixDisk.vault_state

    def policy(fd: int) -> bytes:
        parts = os.readlink(f"/proc/self/fd/{fd}").split("/")
        return bytes([2]) * 24 if "vault" in parts else b""

    def vault_state(disk: PosixDisk, path: str) -> str:
        return "read-only" if state.read_only else real(disk, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upgradeconverter.disk.native.encryption_policy", policy)
        patch.setattr("upgradeconverter.disk.native.has_key", lambda *_: not state.locked)
        patch.setattr(PosixDisk, "vault_state", vault_state)
        yield state


@contextmanager
def stopping(stop: tuple[RecordKind, str] | None, *, skip: int = 0) -> Iterator[None]:
    """Let the body stop dead `before` or `after` a record of one kind is written to the journal, the first but `skip`."""
    append, seen = Journal.append, 0

    def appending(journal: Journal, txid: str, kind: RecordKind, payload: dict[str, Any]) -> None:
        nonlocal seen
        is_it = stop is not None and stop[0] is kind and seen == skip
        seen += stop is not None and stop[0] is kind
        if is_it and stop == (kind, "before"):
            raise ProcessDeathError
        append(journal, txid, kind, payload)
        if is_it:
            raise ProcessDeathError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", appending)
        try:
            yield
        except ProcessDeathError:
            return


def checked(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command line; whatever happens its document fits the schema, its status is documented, and no mistake shows."""
    status, document = run(*arguments)
    jsonschema.validate(document, SCHEMA)
    assert document["exit_status"] == status
    assert status in EXIT_STATUSES
    assert (document["error"] or {}).get("code") != "Internal", document["error"]
    return status, document


def contents(top: str) -> Counter[str]:
    """Return the contents of all files with how often each is there; of the engine's own only what it set aside counts."""
    found: Counter[str] = Counter()
    for path, entry in capture(top, engine=True).items():
        own = path.startswith(f"{ENGINE}/") and not path.startswith(f"{ENGINE}/quarantine/")
        if "data" in entry and not own:
            found[json.dumps([entry["size"], entry["data"]])] += 1
    return found
