"""Which volume of the configuration has a right to which legacy file. Pure.

A *claim* is what one drive (or, where an application has no drives, one volume reference) expects to find: a digest
and a purge generation. Positions pair drives with references, as EVE did; where the digest of the content tree
contradicts the position, a single reference that agrees wins, otherwise the claim is ambiguous (known defect 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from .config import App, ContentTree, DeviceConfig, VolumeRef


class Claim(Struct, frozen=True, kw_only=True):
    """What one drive expects; `ref` is None without a usable reference."""

    app: str
    index: int
    digest: str
    purge: int
    form: str
    ref: VolumeRef | None
    ambiguous: bool = False


def claims_of(config: DeviceConfig) -> tuple[Claim, ...]:
    """Return all claims of a configuration, by application and position."""
    found: list[Claim] = []
    for app in config.apps:
        found.extend(_by_drive(config, app) if app.drives else _by_reference(config, app))
    return tuple(found)


def _by_reference(config: DeviceConfig, app: App) -> list[Claim]:
    found = []
    for index in range(len(app.refs)):
        tree = _tree(config, _usable(app, index))
        found.append(
            Claim(
                app=app.uuid,
                index=index,
                digest=tree.digest if tree is not None else "",
                purge=_purge(app, index),
                form=tree.form if tree is not None else "fmtunknown",
                ref=_usable(app, index),
            ),
        )
    return found


def _by_drive(config: DeviceConfig, app: App) -> list[Claim]:
    digests = [_drive_digest(config, app, index) for index in range(len(app.drives))]
    found = []
    for index, drive in enumerate(app.drives):
        if not drive.has_image:
            continue
        digest, ref, ambiguous = digests[index], _usable(app, index), False
        if _contradicted(digest, _tree_digest(config, ref)):
            ref = _agreeing(config, app, digests, digest)
            ambiguous = ref is None
        found.append(
            Claim(
                app=app.uuid,
                index=index,
                digest=digest,
                purge=_purge(app, index),
                form=drive.form,
                ref=ref,
                ambiguous=ambiguous,
            ),
        )
    return found


def _purge(app: App, index: int) -> int:
    """Return the purge counter of a position: EVE 5.2 to 5.6 counted purges of the first drive only."""
    return app.purge if index == 0 else 0


def _usable(app: App, index: int) -> VolumeRef | None:
    """Return the reference of a position, unless it names no volume (known defect 3)."""
    return app.refs[index] if index < len(app.refs) and app.refs[index].volume is not None else None


def _tree(config: DeviceConfig, ref: VolumeRef | None) -> ContentTree | None:
    volume = config.volumes.get(ref.volume or "") if ref is not None else None
    return config.content_trees.get(volume.content_tree) if volume is not None else None


def _tree_digest(config: DeviceConfig, ref: VolumeRef | None) -> str:
    tree = _tree(config, ref)
    return tree.digest if tree is not None else ""


def _drive_digest(config: DeviceConfig, app: App, index: int) -> str:
    drive = app.drives[index]
    if not drive.has_image:
        return ""
    latched = config.latches.get((app.uuid, drive.image, _purge(app, index)), "")
    return drive.digest or latched or _tree_digest(config, _usable(app, index))


def _contradicted(digest: str, expected: str) -> bool:
    return bool(digest and expected) and digest != expected


def _agreeing(config: DeviceConfig, app: App, digests: list[str], digest: str) -> VolumeRef | None:
    """Return the only reference with this content that no drive has by position, if only one drive looks for it."""
    expected = [_tree_digest(config, _usable(app, index)) for index in range(len(app.refs))]
    pairs = enumerate(zip(digests, expected, strict=False))
    confirmed = {index for index, (wanted, offered) in pairs if wanted == offered != ""}
    fitting = [index for index in range(len(expected)) if expected[index] == digest and index not in confirmed]
    looking = [index for index in range(len(digests)) if digests[index] == digest and index not in confirmed]
    return app.refs[fitting[0]] if len(fitting) == len(looking) == 1 else None
