"""A configuration counts as the settings want it: signed, or with a word about what is wrong with its signature, or as it is."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from migrations.eve.checkpoint import CANDIDATES, OPTIONS, SIGNATURE, read_checkpoint
from tests.packs.eve_device import Device
from tests.packs.eve_words import app, container, device, documents, response
from tests.packs.test_eve_signature import GOOD, OLD, PARTNER, ROOT, SIGNER, THEN, certify, listed, signed
from tests.support.olddisk import left
from upgradeconverter.packs.api import Checkpoint, Document, Reason

if TYPE_CHECKING:
    from pathlib import Path

MAIN, BACKUP = CANDIDATES[0], CANDIDATES[2]
CONFIG = response(device(app()))
LISTS, SERVER, ROOTS = "checkpoint/controllercerts", "certs/server-signing-cert.pem", "config:root-certificate.pem"
SIGNED = signed(SIGNER, payload=CONFIG).SerializeToString()
NEW = {LISTS: listed(*GOOD), ROOTS: ROOT.text}
POLICIES = OPTIONS[SIGNATURE]


def read(files: dict[str, bytes], policy: str, at: dt.datetime = THEN) -> Checkpoint:
    """Read a configuration that was last touched at some time."""
    found: dict[str, Document] = documents(files)
    for path in (MAIN, BACKUP):
        if path in found:
            found[path] = replace(found[path], mtime_ns=int(at.timestamp() * 10**9))
    return read_checkpoint(found, {SIGNATURE: policy})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "files",
    [pytest.param({MAIN: SIGNED, **NEW}, id="list"), pytest.param({MAIN: SIGNED, SERVER: SIGNER.text}, id="one certificate")],
)
def test_signed(files: dict[str, bytes], policy: str) -> None:
    """What the controller has signed counts, without a word, whatever is wanted."""
    checkpoint = read(files, policy)
    assert (checkpoint.content is not None, checkpoint.warnings) == (True, ())


def _tampered() -> bytes:
    found = signed(SIGNER, payload=CONFIG)
    found.protectedPayload.payload = response(device(app(), app(uuid="2" * 32)))
    return found.SerializeToString()


@pytest.mark.parametrize(
    ("files", "word"),
    [
        pytest.param({MAIN: SIGNED}, "no certificate", id="no certificate"),
        pytest.param({MAIN: SIGNED, SERVER: PARTNER.text}, "another certificate", id="other certificate"),
        pytest.param({MAIN: _tampered(), **NEW}, "signature is wrong", id="tampered"),
        pytest.param({MAIN: SIGNED, **NEW, ROOTS: certify("other").text}, "no chain", id="other root"),
        pytest.param({MAIN: container(CONFIG, algo=3), **NEW}, "unknown form", id="unknown algorithm"),
        pytest.param({MAIN: container(CONFIG, sender=20), **NEW}, "wrong length", id="odd hash"),
        pytest.param({MAIN: container(CONFIG, signature=b""), SERVER: SIGNER.text}, "another certificate", id="no signature"),
    ],
)
def test_what_is_wrong_is_said(files: dict[str, bytes], word: str) -> None:
    """What is not signed as it says is used with a word about it, without one, or not at all, as is wanted."""
    checkpoint = read(files, "warn")
    assert checkpoint.content is not None
    assert [word in warning for warning in checkpoint.warnings] == [True]
    assert read(files, "off").warnings == ()
    refused = read(files, "require")
    assert (refused.content, refused.problem) == (None, Reason.CHECKPOINT_UNTRUSTED)
    assert word in refused.detail


def test_unsigned() -> None:
    """What older releases saved is nothing to warn of, and nothing to trust where that is required."""
    assert read({MAIN: CONFIG}, "warn").warnings == ()
    assert read({MAIN: CONFIG, **NEW}, "require").problem is Reason.CHECKPOINT_UNTRUSTED


def test_backup_is_trusted() -> None:
    """Where the first one is not trusted the second one may be."""
    checkpoint = read({MAIN: _tampered(), BACKUP: SIGNED, **NEW}, "require")
    assert checkpoint.source == BACKUP
    assert [word in " ".join(checkpoint.warnings) for word in (MAIN, BACKUP)] == [True, True]


@pytest.mark.parametrize(
    ("at", "trusted"),
    [
        pytest.param(THEN, False, id="after the end"),
        pytest.param(THEN - 1.5 * dt.timedelta(days=365), True, id="in time"),
        pytest.param(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), True, id="no clock"),
    ],
)
def test_clock(at: dt.datetime, *, trusted: bool) -> None:
    """Certificates have to be valid at the last contact; a time from before there was any EVE says nothing."""
    files = {MAIN: signed(OLD, payload=CONFIG).SerializeToString(), LISTS: listed((1, OLD), *GOOD[1:]), ROOTS: ROOT.text}
    if at == THEN - 1.5 * dt.timedelta(days=365):
        # The partner's certificate has to be valid then as well.
        files[LISTS] = listed((1, OLD), GOOD[1], (3, OLD))
    assert (read(files, "require", at).content is not None) == trusted


def test_program_asks(tmp_path: Path) -> None:
    """The option reaches the pack, from the command line; a value that there is none of is refused."""
    made = Device.at(tmp_path)
    image = f"img/{'ab' * 32}-{'1' * 8}-1111-4111-8111-{'1' * 12}.qcow2"
    made.write(f"persist/{image}", b"image")
    made.write(f"persist/{MAIN}", CONFIG)
    assert left(made.do("--option", f"{SIGNATURE}=require"))[image] == "CheckpointUntrusted"
    assert left(made.do())[image] == "NoOwnerInConfig"
