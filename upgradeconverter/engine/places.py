"""Where the engine keeps what is its own: one folder per domain, the root's with journal, ledger and stamp."""

from __future__ import annotations

from upgradeconverter.disk.port import ENGINE_FOLDER
from upgradeconverter.model.entry import XATTR_PREFIX

__all__ = ["ENGINE_FOLDER", "XATTR_PREFIX"]

JOURNAL = f"{ENGINE_FOLDER}/journal"
# Journals of earlier runs, the latest first.
EARLIER_JOURNALS = (f"{ENGINE_FOLDER}/journal.previous", f"{ENGINE_FOLDER}/journal.before")
LEDGER = f"{ENGINE_FOLDER}/ledger"
# What the ledger held before it grew too large.
EARLIER_LEDGER = f"{ENGINE_FOLDER}/ledger.previous"
STAMP = f"{ENGINE_FOLDER}/stamp"
QUARANTINE = "quarantine"
# Tells the units, and the preflight, that a trial waits to be confirmed.
WAITING = f"{ENGINE_FOLDER}/waiting"
# In each domain, only while a transaction is open; the preflight takes them for a reason to look closer.
WORKING_FOLDERS = ("trash", "stage", "manifest")


def join(folder: str, name: str) -> str:
    """Return a path below a folder, where the folder may be the root (`""`)."""
    return f"{folder}/{name}" if folder else name


def parent(path: str) -> str:
    """Return the folder that holds a path; `""` is the root."""
    return path.rpartition("/")[0]


def folder_of(home: str) -> str:
    """Return the engine's folder of a domain."""
    return join(home, ENGINE_FOLDER)


def stage_folder(home: str, txid: str) -> str:
    """Return where a transaction stages in a domain."""
    return f"{folder_of(home)}/stage/{txid}"


def trash_folder(home: str, txid: str) -> str:
    """Return where a transaction puts away what came from a domain."""
    return f"{folder_of(home)}/trash/{txid}"


def manifest_path(home: str, txid: str) -> str:
    """Return where the list of a transaction's staged files lies."""
    return f"{folder_of(home)}/manifest/{txid}"


def quarantine_path(home: str, txid: str, number: int) -> str:
    """Return where something that fails its own name is set aside."""
    return f"{folder_of(home)}/{QUARANTINE}/{txid}-{number}"
