"""One machine of a development root: where its parts lie, where they go, and its record in the registry. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from . import policy
from .images import QCOW2, Image

if TYPE_CHECKING:
    from collections.abc import Mapping

TPM_FOLDER = "tpm"


class Machine(Struct, frozen=True, kw_only=True):
    """One machine of the development root.

    Attributes:
        image: what its disk tells; `size` is that of the file in bytes.
        disk: where the disk lies; `old` is the name by which host scripts know it, empty where they know none.
        parts: what else goes with it, and where to.
        leftovers: what keeps an emptied directory, and is kept aside.
        emptied: directories of its TPM that nothing is left in.
        wants: what its registry said of the policy, by table.
    """

    vm_id: str
    kind: str
    name: str
    image: Image
    size: int
    disk: str
    old: str
    devices: Mapping[str, Any]
    parts: tuple[tuple[str, str, str], ...] = ()
    leftovers: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    wants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    snapshot: str = ""
    storage: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where it lies in the data root."""
        return f"vm/{self.kind}/{self.vm_id}"

    @property
    def target(self) -> str:
        """Where its disk lies in the data root."""
        if self.image.format == QCOW2:
            return f"{self.folder}/disk.qcow2"
        return f"{self.folder}/rootfs.ext4" if self.image.filesystem else f"{self.folder}/disk.raw"

    def legacy(self, top: str) -> dict[str, str]:
        """Return the new paths by the old ones that host scripts know."""
        moved = {source: target for source, target, _ in self.parts if "/tpm/" not in source}
        moved |= dict.fromkeys(self.emptied, f"{self.folder}/{TPM_FOLDER}")
        known = {source.removeprefix(top): target for source, target in moved.items()}
        return known | ({self.old: self.target} if self.old else {})

    def record(self, top: str) -> dict[str, Any]:
        """Return its record in the registry of the data root."""
        storage = {"disk": self.target, "format": self.image.format, "size": self.image.size or self.size, **self.storage}
        made: dict[str, Any] = {"vm_id": self.vm_id, "kind": self.kind, "name": self.name, "storage": storage}
        made |= {"devices": dict(self.devices), "policy_ref": policy.PLACE}
        if self.snapshot:
            made["saved_state"] = {"disk": self.target, "snapshot": self.snapshot}
        return made | {"host_paths": self.legacy(top)}
