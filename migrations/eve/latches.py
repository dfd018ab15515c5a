"""Digests that EVE looked up itself, because the configuration names a registry image only. Pure.

Two topics hold them: zedmanager's by application, image and purge counter; volumemgr's by content tree, with a nil
application.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .names import read_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.packs.api import Document

LATCH_FOLDERS = ("status/zedmanager/AppAndImageToHash", "status/volumemgr/AppAndImageToHash")

LatchKey = tuple[str, str, int]


def read_latches(documents: Mapping[str, Document]) -> tuple[dict[LatchKey, str], tuple[str, ...]]:
    """Return digest by (application, image or content tree, purge counter), and a warning for each useless file."""
    found: dict[LatchKey, str] = {}
    warnings: list[str] = []
    inside = [path for path in documents if path.rpartition("/")[0] in LATCH_FOLDERS]
    for path in sorted({path.removesuffix(".bak") for path in inside if path.endswith((".json", ".json.bak"))}):
        latch = _latch(_content(documents, path))
        if latch is None:
            warnings.append(f"{path}: not a digest latch, ignored")
        else:
            found[latch[0]] = latch[1]
    return found, tuple(warnings)


def _content(documents: Mapping[str, Document], path: str) -> bytes:
    """Return what a file holds, or its backup when the file is empty or missing."""
    for candidate in (path, f"{path}.bak"):
        document = documents.get(candidate)
        if document is not None and document.content:
            return document.content
    return b""


def _latch(content: bytes) -> tuple[LatchKey, str] | None:
    try:
        data = json.loads(content)
        app, image = read_uuid(data["AppUUID"]), read_uuid(data["ImageID"])
        digest, purge = data["Hash"], data.get("PurgeCounter", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if image is None or not isinstance(digest, str) or type(purge) is not int:
        return None
    return (app or "", image, purge), digest.lower()
