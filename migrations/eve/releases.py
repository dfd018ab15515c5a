"""Which release of EVE has its state where, and in which form. Pure.

A layout is named by the first release that has it; a release has the layout with the highest number that is not above its own.
What one branch of long support got has an end there, since the next branch got it later, or never.

Sources: lf-edge/eve at the tags named, and the project's document "New /persist layout for volumes etc" (`DESIGN`).
"""

from __future__ import annotations

import re
from enum import StrEnum

from upgradeconverter.packs.api import LayoutOrder, Range

Release = tuple[int, int, int]

LEGACY, DESIGN = "legacy", "design"
# Builds between releases call themselves `0.0.0-branch-commit`; only a present one can carry this program.
_BETWEEN_RELEASES: Release = (0, 0, 0)
# The first release whose names the design's volumes take.
_AFTER_DESIGN: Release = (5, 7, 0)


class Feature(StrEnum):
    """Something that a release has, where others have something else or nothing."""

    CONFIG_MAP = "settings in P/config/ConfigItemValueMap"
    CONFIG_MAP_IN_STATUS = "settings in P/status/zedagent/ConfigItemValueMap"
    CONFIG_IMPORT = "settings imported from the configuration partition by the converter"
    BACKUPS = "the version before beside each file of a persistent topic"
    INGESTED = "digests of what was imported in P/ingested"
    VAULT_VOLUMES = "volumes in P/vault/volumes"
    CLEAR_VOLUMES = "volumes that are not encrypted in P/clear/volumes"
    OWN_DIRECTORIES = "the downloader's and the verifier's directories in the vault"
    MEDIA_TYPES = "media types in the names of verified files"
    PAIRS_WITH_INTERFACE = "numbers by network, application and interface"
    USER_CONTAINERD = "the users' containerd in P/vault/containerd"
    CASE = "content-addressable storage in P/vault/case, as the design document has it"
    METADATA_OF_MSRV = "metadata of applications with msrv"
    STALE_TOPICS = "removal of topics that are not persistent any more"


_Span = tuple[Release, Release | None]
# The map was persistent up to these, each the last of its branch.
_CONFIG_ENDS: tuple[_Span, ...] = (((14, 5, 4), (15, 0, 0)), ((16, 0, 1), (16, 1, 0)), ((16, 12, 0), None))


def _until_config_ends(since: Release) -> tuple[_Span, ...]:
    found: list[_Span] = []
    for first, again in _CONFIG_ENDS:
        found.append((since, first))
        since = again or since
    return tuple(found)


_SPANS: dict[Feature, tuple[_Span, ...]] = {
    Feature.CONFIG_MAP: (((5, 1, 0), (5, 15, 0)),),
    Feature.CONFIG_MAP_IN_STATUS: _until_config_ends((5, 15, 0)),
    Feature.CONFIG_IMPORT: _until_config_ends((6, 9, 0)),
    Feature.BACKUPS: (((8, 3, 1), None),),
    Feature.INGESTED: _until_config_ends((8, 8, 0)),
    Feature.VAULT_VOLUMES: (((5, 7, 0), None),),
    Feature.CLEAR_VOLUMES: (((5, 7, 1), None),),
    Feature.OWN_DIRECTORIES: (((5, 7, 1), None),),
    Feature.PAIRS_WITH_INTERFACE: (((7, 7, 0), None),),
    Feature.USER_CONTAINERD: (((7, 11, 0), None),),
    Feature.CASE: (),
    Feature.MEDIA_TYPES: (
        ((9, 4, 11), (9, 5, 0)),
        ((10, 4, 9), (10, 5, 0)),
        ((11, 0, 3), (11, 1, 0)),
        ((11, 8, 0), None),
    ),
    Feature.METADATA_OF_MSRV: (((12, 5, 0), None),),
    Feature.STALE_TOPICS: (((17, 1, 0), None),),
}
_OF_DESIGN = frozenset({Feature.CASE, Feature.CONFIG_MAP, Feature.VAULT_VOLUMES, Feature.CLEAR_VOLUMES, Feature.OWN_DIRECTORIES})

_FIRSTS: tuple[Release, ...] = tuple(
    sorted({number for spans in _SPANS.values() for span in spans for number in span if number is not None})
)


def label_of(release: Release) -> str:
    """Return how a layout is called that this release has first."""
    return ".".join(str(part) for part in release)


_EARLIER = tuple(label_of(release) for release in _FIRSTS if release < _AFTER_DESIGN)
_LATER = tuple(label_of(release) for release in _FIRSTS if release >= _AFTER_DESIGN)
LABELS = (LEGACY, *_EARLIER, DESIGN, *_LATER)
AFTER_DESIGN, LATEST = _LATER[0], _LATER[-1]


def read_release(word: str) -> Release | None:
    """Return the number in a release's name, such as `16.12.0-kvm-amd64` or `5.7`; None when there is none."""
    match = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:[-+].*)?", word)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def has(label: str, feature: Feature) -> bool:
    """Return whether a layout has something."""
    if label in (LEGACY, DESIGN):
        return label == DESIGN and feature in _OF_DESIGN
    release = read_release(label)
    return release is not None and any(
        first <= release and (until is None or release < until) for first, until in _SPANS[feature]
    )


def layouts_with(*features: Feature, without: Feature | None = None) -> tuple[Range, ...]:
    """Return the layouts that have one of several things, and not something else, as ranges."""
    ranges: list[Range] = []
    since = None
    for label in LABELS:
        is_one = any(has(label, feature) for feature in features) and (without is None or not has(label, without))
        if is_one and since is None:
            since = label
        elif not is_one and since is not None:
            ranges.append(Range(since, label))
            since = None
    return (*ranges, Range(since)) if since is not None else tuple(ranges)


def resolve(word: str) -> str | None:
    """Return the layout of a label, of `latest`, or of a release; None otherwise."""
    if word == "latest":
        return LATEST
    if word in LABELS:
        return word
    release = read_release(word)
    if release is None:
        return None
    if release == _BETWEEN_RELEASES:
        return LATEST
    known = [first for first in _FIRSTS if first <= release]
    return label_of(known[-1]) if known else LEGACY


ORDER = LayoutOrder(labels=LABELS, resolve=resolve)
