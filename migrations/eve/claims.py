"""Which volume of the configuration has a right to which legacy file. Pure.

A *claim* is what one drive (or, where an application has no drives, one volume reference) expects to find: a digest and a purge
generation. Positions pair drives with references, as EVE did; where the digest of the content tree contradicts the position, a
single reference that agrees wins, otherwise the claim is ambiguous (known defect 5).
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import App, DeviceConfig, VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
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
    return tuple(claim for claim in found if claim.digest)


def tree_digest(config: DeviceConfig, ref: VolumeRef | None) -> str:
    """Return the digest that a reference leads to by volume and content tree, empty when unknown."""
    volume = config.volumes.get(ref.volume or "") if ref is not None else None
    tree = config.content_trees.get(volume.content_tree) if volume is not None else None
    return tree.digest if tree is not None else ""


def _usable(app: App, index: int) -> VolumeRef | None:
    if index >= len(app.refs) or app.refs[index].volume is None:
        return None
    return app.refs[index]


def _by_reference(config: DeviceConfig, app: App) -> list[Claim]:
    found = []
    for index, ref in enumerate(app.refs):
        volume = config.volumes.get(ref.volume or "")
        tree = config.content_trees.get(volume.content_tree) if volume is not None else None
        form = tree.form if tree is not None else "fmtunknown"
        purge = app.purge if index == 0 else 0
        digest = tree_digest(config, ref)
        found.append(
            Claim(app=app.uuid, index=index, digest=digest, purge=purge, form=form, ref=ref if ref.volume else None),
        )
    return found


def _by_drive(config: DeviceConfig, app: App) -> list[Claim]:
    found = []
    for index, drive in enumerate(app.drives):
        if not drive.has_image:
            continue
        # EVE 5.2 to 5.6 counted purges of the first drive only.
        purge = app.purge if index == 0 else 0
        ref = _usable(app, index)
        expected = tree_digest(config, ref)
        digest = drive.digest or config.latches.get((app.uuid, drive.image, purge), "") or expected
        ambiguous = False
        if ref is not None and expected and digest and expected != digest:
            ref, ambiguous = _agreeing(config, app, digest)
        found.append(
            Claim(
                app=app.uuid,
                index=index,
                digest=digest,
                purge=purge,
                form=drive.form,
                ref=ref,
                ambiguous=ambiguous,
            ),
        )
    return found


def _agreeing(config: DeviceConfig, app: App, digest: str) -> tuple[VolumeRef | None, bool]:
    """Return the only reference of an application whose content has a digest and that no drive has by position."""
    confirmed = {
        index
        for index, drive in enumerate(app.drives)
        if drive.digest and index < len(app.refs) and tree_digest(config, app.refs[index]) == drive.digest
    }
    fitting = [
        ref
        for index, ref in enumerate(app.refs)
        if ref.volume is not None and index not in confirmed and tree_digest(config, ref) == digest
    ]
    wanting = sum(1 for drive in app.drives if drive.digest == digest) - len(
        [index for index in confirmed if app.drives[index].digest == digest],
    )
    return (fitting[0], False) if len(fitting) == 1 and wanting <= 1 else (None, True)
