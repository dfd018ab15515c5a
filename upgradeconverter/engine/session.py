"""Looking at a disk through a pack: layouts, checkpoint, inventory, plan. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upgradeconverter.engine.stamp import Stamp, read_stamp
from upgradeconverter.errors import (
    UnknownLayoutError,
    VaultLockedError,
    VaultMissingError,
    VaultNotUsableError,
)
from upgradeconverter.packs.api import Checkpoint, DiskState, Document, Pack, Phase
from upgradeconverter.planning.chain import chain
from upgradeconverter.planning.planner import plan
from upgradeconverter.planning.scan import read_document, read_folder, scan
from upgradeconverter.planning.survey import survey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.errors import UpgradeConverterError
    from upgradeconverter.model.layout import Layout
    from upgradeconverter.model.operation import Proposal, Skip
    from upgradeconverter.model.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One pack, one disk, one target.

    Attributes:
        asked: target that was asked for explicitly, or empty.
        release: what the system's release files say, or empty.
    """

    disk: Disk
    pack: Pack
    agents: Mapping[str, tuple[int, int]]
    asked: str = ""
    release: str = ""

    def target_label(self) -> str:
        """Return the layout to be reached: as asked, else as the running system needs, else the pack's default."""
        label = self.pack.order.label_of(self.asked or self.release or self.pack.default_target)
        if label not in self.pack.layouts:
            raise UnknownLayoutError(label, tuple(self.pack.layouts))
        return label

    def layout(self) -> Layout:
        """Return the target layout."""
        return self.pack.layouts[self.target_label()]

    def stamp(self) -> Stamp | None:
        """Return the stamp, if there is one."""
        return read_stamp(self.disk)

    def carried_label(self) -> str:
        """Return the layout that the disk carries; without a stamp, the oldest one."""
        stamp = self.stamp()
        return stamp.layout if stamp is not None else self.pack.order.labels[0]

    def source_label(self) -> str:
        """Return the layout to start from.

        Raises:
            UnknownNewerLayoutError: the stamp names a layout that the pack does not know.
            NoPathError: the target lies before it.
        """
        source = self.carried_label()
        self.pack.order.check_forward(source, self.target_label())
        return source

    def phases(self, name: str) -> tuple[Phase, ...]:
        """Return the phase of that name, or all."""
        return tuple(phase for phase in self.pack.phases if name in ("all", phase.name))

    def checkpoint(self) -> Checkpoint:
        """Read and decode the device's own configuration."""
        documents: dict[str, Document] = {}
        for wanted in self.pack.inputs:
            if wanted.directory:
                documents.update({d.path: d for d in read_folder(self.disk, wanted.path, wanted.limit)})
            else:
                documents[wanted.path] = read_document(self.disk, wanted.path, wanted.limit)
        return self.pack.read_checkpoint(documents)

    def make_plan(self, phase: str, *, may_rename: bool = True) -> Plan:
        """Return what there is to do in one phase; without `may_rename` everything is copied."""
        label = self.target_label()
        checkpoint = self.checkpoint()
        proposals: list[Proposal] = []
        found: list[Skip] = []
        for migration in chain(self.pack.migrations, self.pack.order, label, phase):
            inventory, skips = scan(self.disk, migration.reads)
            found.extend(skips)
            proposals.append(
                migration.plan(DiskState(target=self.layout(), checkpoint=checkpoint, inventory=inventory)),
            )
        facts = survey(self.disk, [operation for proposal in proposals for operation in proposal.operations])
        concerned = checkpoint.problem is None or any(p.operations or p.skips for p in proposals)
        return plan(
            proposals,
            facts,
            self.layout(),
            pack=self.pack.name,
            source=self.source_label(),
            agents=self.agents,
            found=tuple(found),
            warnings=checkpoint.warnings if concerned else (),
            may_rename=may_rename,
        )

    def vault_problem(self, phase: Phase) -> UpgradeConverterError | None:
        """Return why a phase must not touch anything, or None."""
        if not phase.needs_vault or self.pack.vault is None:
            return None
        state = self.disk.vault_state(self.pack.vault)
        if state == "missing":
            return VaultMissingError(self.pack.vault)
        if state == "locked":
            return VaultLockedError(self.pack.vault, "a vault without its key")
        if state in ("read-only", "not a directory"):
            return VaultNotUsableError(self.pack.vault, state)
        return None

    def vault_warnings(self, phase: Phase) -> tuple[str, ...]:
        """Return what people should know about the vault although work can go on."""
        if phase.needs_vault and self.pack.vault and self.disk.vault_state(self.pack.vault) == "plain":
            return (f"{self.pack.vault} is a plain directory: what goes there is not encrypted",)
        return ()


def watched_paths(session: Session, phase: str, skips: tuple[Skip, ...]) -> tuple[str, ...]:
    """Return the paths whose change would give a phase something to do again."""
    label = session.target_label()
    paths: dict[str, None] = {}
    for migration in chain(session.pack.migrations, session.pack.order, label, phase):
        for slot in migration.reads:
            paths[slot.directory] = None
    if skips:
        for wanted in session.pack.inputs:
            paths[wanted.path] = None
        for skip in skips:
            paths[skip.path] = None
    return tuple(sorted(path for path in paths if path and "\n" not in path))
