"""What the migrations need of a device's configuration, in plain types: digests and UUIDs in lower case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One drive of an application; a blank disk has no image."""

    has_image: bool
    image: str
    digest: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRef:
    """What an application says of one of its volumes; `volume` is None when the UUID is unusable."""

    volume: str | None
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One application instance."""

    uuid: str
    purge: int
    drives: tuple[Drive, ...]
    refs: tuple[VolumeRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume of the configuration; `clear_text` ones are not encrypted."""

    generation: int
    clear_text: bool
    content_tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentTree:
    """What a volume is made from."""

    digest: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """The device's configuration; `latches` hold digests that EVE resolved itself, by (app, image, purge counter)."""

    apps: tuple[App, ...]
    volumes: Mapping[str, Volume]
    content_trees: Mapping[str, ContentTree]
    latches: Mapping[tuple[str, str, int], str]
