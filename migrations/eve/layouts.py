"""EVE's layouts: the design document's own, and those of the releases as shipped.

Sources: the document "New /persist layout for volumes etc", and lf-edge/eve at the tags named. 5.7.0 has
`vault/volumes` only; `clear_text`, the downloader's and the verifier's directories came with 5.7.1, and with 7.11.0 the users'
containerd store.
"""

from __future__ import annotations

import re

from upgradeconverter.packs.api import Kind, Layout, LayoutOrder, Slot, Zone

from .names import CONTAINER_PATTERN, DIGEST_PATTERN, VM_PATTERN, VOLUME_PATTERN

LEGACY, DESIGN, RELEASE_5_7_0, RELEASE_5_7_1, RELEASE_7_11_0 = "legacy", "design", "5.7.0", "5.7.1", "7.11.0"
_LABELS = (LEGACY, DESIGN, RELEASE_5_7_0, RELEASE_5_7_1, RELEASE_7_11_0)
_BETWEEN_RELEASES = (0, 0, 0)
_RELEASES = {RELEASE_5_7_0: (5, 7, 0), RELEASE_5_7_1: (5, 7, 1), RELEASE_7_11_0: (7, 11, 0)}

IMAGES = Slot(
    name="img",
    directory="img",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=VM_PATTERN,
    kind=Kind.FILE,
)
PREPARED = Slot(
    name="prepared",
    directory="runx/pods/prepared",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.PLAIN,
    pattern=CONTAINER_PATTERN,
    kind=Kind.DIRECTORY,
)
VERIFIED_BY_TYPE = tuple(
    Slot(
        name=f"verified-{object_type}",
        directory=f"downloads/{object_type}.obj/verified",
        owner="verifier",
        mode=0o700,
        zone=Zone.PLAIN,
        pattern=DIGEST_PATTERN,
        kind=Kind.DIRECTORY,
        children=True,
    )
    for object_type in ("appImg", "baseOs")
)

# Entries keep their modes: the readers (domainmgr, qemu) differ between releases.
VAULT_VOLUMES = Slot(
    name="vault-volumes",
    directory="vault/volumes",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.VAULT,
    pattern=VOLUME_PATTERN,
    labels=True,
)
CLEAR = Slot(name="clear", directory="clear", owner="volumemgr", mode=0o700, zone=Zone.CLEAR)
CLEAR_VOLUMES = Slot(
    name="clear-volumes",
    directory="clear/volumes",
    owner="volumemgr",
    mode=0o700,
    zone=Zone.CLEAR,
    pattern=VOLUME_PATTERN,
    labels=True,
)
VERIFIER = Slot(name="verifier", directory="vault/verifier", owner="verifier", mode=0o700, zone=Zone.VAULT)
VERIFIED = Slot(
    name="verified",
    directory="vault/verifier/verified",
    owner="verifier",
    mode=0o700,
    zone=Zone.VAULT,
    entry_mode=0o400,
)
DOWNLOADER = Slot(name="downloader", directory="vault/downloader", owner="downloader", mode=0o700, zone=Zone.VAULT)

OLD_CONTAINERD = Slot(
    name="old-containerd",
    directory="containerd",
    owner="containerd",
    mode=0o711,
    zone=Zone.PLAIN,
    kind=Kind.DIRECTORY,
    whole=True,
)
CONTAINERD = Slot(name="containerd", directory="vault/containerd", owner="containerd", mode=0o711, zone=Zone.VAULT)

_ALL = (VAULT_VOLUMES, CLEAR, CLEAR_VOLUMES, VERIFIER, VERIFIED, DOWNLOADER)

LAYOUTS = {
    LEGACY: Layout(label=LEGACY, slots=()),
    DESIGN: Layout(label=DESIGN, slots=_ALL),
    RELEASE_5_7_0: Layout(label=RELEASE_5_7_0, slots=(VAULT_VOLUMES,)),
    RELEASE_5_7_1: Layout(label=RELEASE_5_7_1, slots=_ALL),
    RELEASE_7_11_0: Layout(label=RELEASE_7_11_0, slots=(*_ALL, CONTAINERD)),
}


def resolve(word: str) -> str | None:
    """Return the layout of a label, of `latest`, or of a release string such as `16.12.0-kvm-amd64`; None otherwise.

    Builds between releases call themselves `0.0.0-branch-commit`; only a present one can carry this program. Releases
    before 5.7.0 use what they always used.
    """
    if word == "latest":
        return _LABELS[-1]
    if word in _LABELS:
        return word
    match = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:[-+].*)?", word)
    if match is None:
        return None
    release = tuple(int(part or 0) for part in match.groups())
    if release == _BETWEEN_RELEASES:
        return _LABELS[-1]
    known = [label for label, since in _RELEASES.items() if since <= release]
    return known[-1] if known else LEGACY


ORDER = LayoutOrder(labels=_LABELS, resolve=resolve)


def has_slot(layout: Layout, slot: Slot) -> bool:
    """Return whether a layout knows a slot."""
    return slot in layout.slots


def volume_name(layout: Layout, volume: str, generation: int, form: str) -> str:
    """Return how a layout calls a volume; the design keeps the format in an xattr instead of the name."""
    return f"{volume}#{generation}" if layout.label == DESIGN else f"{volume}#{generation}.{form}"
