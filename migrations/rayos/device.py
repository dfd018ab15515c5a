"""What a RayOS device's own files say of its machines and its policy. Pure.

What is wrong with any of them is a refusal: with a wrong identity or a wrong path a machine would not find its disk, and make a
new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from upgradeconverter.packs.api import Checkpoint, Document, Input, Reason, Skip

from . import policy, registry
from .layouts import SOURCE, TAG, top_of
from .names import NotUnderstoodError, leads_out

if TYPE_CHECKING:
    from collections.abc import Mapping

_MISSING = "missing"
_OLD = (registry.HOST_PLACE, policy.PLACE, TAG)
# Registry and policy are written by people and small programs.
_LIMIT = 4 << 20
INPUTS = tuple(
    Input(path=path, limit=_LIMIT) for path in (*_OLD, registry.PLACE, *(f"{SOURCE}:/{path}" for path in (*_OLD, registry.PLACE)))
)


class Device(Struct, frozen=True, kw_only=True):
    """All that is known before anything is looked at.

    Attributes:
        top: what every path of the development root begins with.
        host: what the host scripts' registry says; `host_file` is that as it was read.
        known: the records of the data root, and whether they have to be written anew.
        policy: what the policy of the development root says, None where there is none; `policy_file` is that as it was read.
        tag: the snapshot that the Windows machine is to go on from, empty where none is noted.
        problems: what forbids to convert anything.
    """

    top: str
    host: registry.HostRecord | None = None
    host_file: Document | None = None
    known: registry.Registry = registry.Registry()
    known_file: Document | None = None
    policy: dict[str, Any] | None = None
    policy_file: Document | None = None
    tag: str = ""
    problems: tuple[Skip, ...] = ()


def read_device(documents: Mapping[str, Document], options: Mapping[str, str]) -> Checkpoint:
    """Return the device as its files describe it."""
    top = top_of(options)
    found: dict[str, Any] = {"top": top, "problems": ()}
    problems: list[Skip] = []
    for name, path, read in (
        ("host", f"{top}{registry.HOST_PLACE}", registry.read_host),
        ("known", registry.PLACE, registry.read),
        ("policy", f"{top}{policy.PLACE}", policy.read),
    ):
        document = documents[path]
        if document.problem == _MISSING:
            continue
        try:
            found[name], found[f"{name}_file"] = read(_content(document)), document
        except NotUnderstoodError as error:
            problems.append(Skip(path=path, reason=Reason.CONFIGURATION_UNKNOWN, detail=str(error)))
    problems += _paths_outside(top, found)
    if top and documents[f"{top}{registry.PLACE}"].problem != _MISSING:
        detail = "what state is to be taken from is a data root already, and can be used as it is"
        problems.append(Skip(path=f"{top}{registry.PLACE}", reason=Reason.CONFIGURATION_UNKNOWN, detail=detail))
    tag = documents[f"{top}{TAG}"].content or b""
    found["tag"] = tag.decode("utf-8", "replace").partition("\n")[0].strip()
    return Checkpoint(content=Device(**{**found, "problems": tuple(problems)}), source=registry.HOST_PLACE)


def _content(document: Document) -> bytes:
    if document.content is None:
        raise NotUnderstoodError(f"expected a file that can be read, found {document.problem}")
    return document.content


def _paths_outside(top: str, found: Mapping[str, Any]) -> list[Skip]:
    problems = []
    host, said = found.get("host"), found.get("policy")
    if host is not None and leads_out(host.disk_path):
        detail = f"disk_path {host.disk_path!r} leads out of the data root; bring the disk into it and name it there"
        problems.append(Skip(path=f"{top}{registry.HOST_PLACE}", reason=Reason.LEADS_OUT, detail=detail))
    for key in policy.strays(said or {}):
        detail = f"{key} {policy.paths(said or {})[key]!r} leads out of the data root"
        problems.append(Skip(path=f"{top}{policy.PLACE}", reason=Reason.LEADS_OUT, detail=detail))
    for vm_id, record in found.get("known", registry.Registry()).records.items():
        for name, path in registry.paths(record).items():
            if leads_out(path):
                detail = f"{name} of {vm_id}, {path!r}, leads out of the data root"
                problems.append(Skip(path=registry.PLACE, reason=Reason.LEADS_OUT, detail=detail))
    return problems
