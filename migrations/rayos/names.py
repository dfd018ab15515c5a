"""Identities of machines and paths, as RayOS's documents want them. Pure.

Sources: RayOS, "Disk Layout & Persistence Spec" section 5 and "Policy Configuration Schema" section 4, drafts v0.
"""

from __future__ import annotations

import re
import uuid

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# Identities that nobody gave are made of this and of where the machine's disk lay.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "rayos:vm")
# Where an installed system mounts its data root, which absolute paths in its own files begin with.
MOUNT = "/var/rayos/"


class NotUnderstoodError(ValueError):
    """A file of RayOS's own says what this pack does not know; the message says what was expected and what is there."""


def is_id(word: object) -> bool:
    """Return whether something can identify a machine."""
    return isinstance(word, str) and re.fullmatch(ID_PATTERN, word) is not None


def derived_id(kind: str, place: str, volume: str) -> str:
    """Return an identity for a machine without one: the same whenever it is asked for, and another one for each disk.

    `volume` is what the disk says of itself, where it says anything.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{place}/{volume}"))


def leads_out(path: object) -> bool:
    """Return whether a path is none that lies in the data root."""
    if not isinstance(path, str) or not path or "\0" in path:
        return True
    return path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/"))


def plain(path: str) -> str:
    """Return a path without what says nothing: a dot for the same place, or a slash at the end."""
    return path.removeprefix("./").rstrip("/") if not path.startswith("/") else path


def beside(old: str, new: str) -> str:
    """Return what a link at one path has to say to lead to another one."""
    return "../" * old.count("/") + new
