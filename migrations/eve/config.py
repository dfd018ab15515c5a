"""What the migrations need of a device's configuration, in plain types: digests and UUIDs in lower case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping


class Drive(Struct, frozen=True, kw_only=True):
    """One drive of an application; a blank disk has no image."""

    has_image: bool
    image: str
    digest: str
    form: str


class VolumeRef(Struct, frozen=True, kw_only=True):
    """What an application says of one of its volumes; `volume` is None when the UUID is unusable."""

    volume: str | None
    generation: int


class App(Struct, frozen=True, kw_only=True):
    """One application instance."""

    uuid: str
    purge: int
    drives: tuple[Drive, ...]
    refs: tuple[VolumeRef, ...]


class Volume(Struct, frozen=True, kw_only=True):
    """One volume of the configuration; `clear_text` ones are not encrypted."""

    generation: int
    clear_text: bool
    content_tree: str


class ContentTree(Struct, frozen=True, kw_only=True):
    """What a volume is made from."""

    digest: str
    form: str


class DeviceConfig(Struct, frozen=True, kw_only=True):
    """The device's configuration; `latches` hold digests that EVE resolved itself, by (app, image, purge counter)."""

    apps: tuple[App, ...]
    volumes: Mapping[str, Volume]
    content_trees: Mapping[str, ContentTree]
    latches: Mapping[tuple[str, str, int], str]
