"""Looking at a disk through a pack: layouts, checkpoint, inventory, plan. Nothing here changes anything."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct, field

from upgradeconverter.disk import native
from upgradeconverter.engine.conceal import Concealer
from upgradeconverter.engine.places import (
    EARLIER_JOURNALS,
    EARLIER_LEDGER,
    JOURNAL,
    LEDGER,
    QUARANTINE,
    STAMP,
    WORKING_FOLDERS,
    folder_of,
)
from upgradeconverter.engine.stamp import Stamp, read_stamp
from upgradeconverter.errors import (
    EngineFolderError,
    OtherPackError,
    PackDamagedError,
    UnknownLayoutError,
    UnknownReleaseError,
    UpgradeConverterError,
    VaultLockedError,
    VaultMissingError,
    VaultNotUsableError,
)
from upgradeconverter.model.entry import Kind
from upgradeconverter.model.operation import Skip
from upgradeconverter.model.outcome import Reason
from upgradeconverter.packs.api import Checkpoint, DiskState, Document, Input, Migration, Pack, Phase, Proposal, Slot
from upgradeconverter.planning.chain import chain, ended
from upgradeconverter.planning.compose import Composition
from upgradeconverter.planning.planner import plan
from upgradeconverter.planning.refusing import refused_by
from upgradeconverter.planning.scan import places, read_document, read_folder, scan
from upgradeconverter.planning.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from upgradeconverter.disk.port import Disk
    from upgradeconverter.model.layout import Layout
    from upgradeconverter.model.plan import Plan, Step, Trial


# A checkpoint whose decoding takes so much memory that what is free again has to be given back.
_LARGE = 1 << 20
_OWN_FOLDERS = ("", *(f"/{name}" for name in (*WORKING_FOLDERS, QUARANTINE)))
_OWN_FILES = (JOURNAL, *EARLIER_JOURNALS, LEDGER, EARLIER_LEDGER, STAMP)


class Outside(Struct, frozen=True, kw_only=True):
    """A directory outside of the root, which is only ever read."""

    path: str
    disk: Disk | None


class Session(Struct, frozen=True, kw_only=True):
    """One pack, one disk, one target.

    Attributes:
        asked: target that was asked for explicitly, or empty.
        release: what the system's release files say, or empty; `release_file` is the one that says it.
        config: signature of the settings file, or empty.
        carried: layout that the disk is known to carry, None to read it from the stamp.
        trial: how to plan a trial, None for a conversion that lasts at once.
        pending: sources that wait for a trial to be confirmed.
        waiting: those of them, and those that did until the old system went on with them.
        leaving: what is going to be put away before anything is planned.
        outside: directories outside of the root by name; one without a disk is not there.
        options: what was chosen of the pack's options.
        annexes: what the journal is to know of the annexes that are part of the disk, by name.
        annexed: where in the disk each annex is, by name.
        decoded: the checkpoint of this start, by the documents and the options that it was made of.
        is_lasting: whether the next start will be told the same, without anybody saying so.
    """

    disk: Disk
    pack: Pack
    agents: Mapping[str, tuple[int, int]]
    asked: str = ""
    release: str = ""
    release_file: str = ""
    config: str = ""
    carried: str | None = None
    trial: Trial | None = None
    pending: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    leaving: tuple[Step, ...] = ()
    outside: Mapping[str, Outside] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    annexes: Mapping[str, object] = field(default_factory=dict)
    annexed: Mapping[str, str] = field(default_factory=dict)
    is_lasting: bool = True
    decoded: dict[tuple[object, ...], Checkpoint] = field(default_factory=dict)

    def check_own_folder(self) -> None:
        """Raise EngineFolderError where something lies in the place of the engine's own files that it cannot have made."""
        homes = ("", self.pack.vault) if self.pack.vault is not None else ("",)
        folders = (folder_of(home) + name for home in homes for name in _OWN_FOLDERS)
        kinds = dict.fromkeys(folders, Kind.DIRECTORY) | dict.fromkeys(_OWN_FILES, Kind.FILE)
        for path, kind in kinds.items():
            entry = self.disk.find(path)
            if entry is not None and entry.kind is not kind:
                raise EngineFolderError(path, kind.value, entry.kind.value)

    def unknown_agents(self) -> tuple[str, ...]:
        """Return a sentence for each agent in the settings that no layout of the pack has."""
        slots = [slot for layout in self.pack.layouts.values() for slot in layout.slots]
        known = {slot.owner for slot in slots} | {reader for slot in slots for reader in slot.readers}
        return tuple(f"agent {name!r} in the settings owns and reads nothing" for name in sorted(set(self.agents) - known))

    def target_label(self) -> str:
        """Return the layout to be reached.

        As asked; else as the running system needs; else the one that the disk carries already; else the pack's default.
        """
        order = self.pack.order
        if self.asked:
            label = order.label_of(self.asked)
            if label not in self.pack.layouts:
                raise UnknownLayoutError(label, tuple(self.pack.layouts))
            return label
        if self.release:
            label = order.resolve(self.release) or ""
            if label not in self.pack.layouts:
                raise UnknownReleaseError(self.release, self.release_file, tuple(self.pack.layouts))
            return label
        carried = self.carried_label()
        # The oldest layout is what a disk has that nobody ever converted: that is no wish.
        return carried if carried in order.labels[1:] else order.label_of(self.pack.default_target)

    def layout(self) -> Layout:
        """Return the target layout."""
        return self.pack.layouts[self.target_label()]

    def stamp(self) -> Stamp | None:
        """Return the stamp, if there is one; OtherPackError when another system's state lies here."""
        stamp = read_stamp(self.disk)
        if stamp is not None and stamp.pack != self.pack.name:
            raise OtherPackError(STAMP, self.pack.name, stamp.pack)
        return stamp

    def carried_label(self) -> str:
        """Return the layout that the disk carries; without a stamp, the oldest one."""
        if self.carried is not None:
            return self.carried
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
        documents = self._documents(self.pack.inputs)
        said = ((key, each.digest, each.problem, each.mtime_ns) for key, each in documents.items())
        basis = (*said, *self.chosen().items())
        if basis not in self.decoded:
            # Each phase asks, and decoding may take longer than all the rest.
            self.decoded.clear()
            self.decoded[basis] = self.pack.read_checkpoint(documents, self.chosen())
        if sum(len(each.content or b"") for each in documents.values()) > _LARGE:
            # It, and what it was decoded with, which is several times as large, are of no more use.
            documents.clear()
            native.give_back()
        return self.decoded[basis]

    def chosen(self) -> Mapping[str, str]:
        """Return what counts of each of the pack's options, and where in the disk its annexes are."""
        return {name: values[0] for name, values in self.pack.options.items()} | dict(self.options) | dict(self.annexed)

    def _documents(self, inputs: Iterable[Input]) -> dict[str, Document]:
        documents: dict[str, Document] = {}
        for wanted in inputs:
            start = wanted.key.removesuffix(wanted.path)
            disk = self.outside[wanted.outside].disk if wanted.outside else self.disk
            if disk is None:
                found: tuple[Document, ...] = (Document(path=wanted.path, content=None, problem="missing"),)
            elif wanted.directory:
                found = read_folder(disk, wanted.path, wanted.limit)
            else:
                found = (read_document(disk, wanted.path, wanted.limit),)
            documents |= {f"{start}{document.path}": document for document in found}
        # What is going to be put away is there no more for whoever plans what comes after that.
        gone = {step.source: Document(path=step.source or "", content=None, problem="missing") for step in self.leaving}
        return {key: gone.get(key, document) for key, document in documents.items()}

    def slots_of(self, migration: Migration) -> tuple[Slot, ...]:
        """Return the slots that a migration reads, those among them that only its inputs name."""
        if migration.names is None:
            return migration.reads
        with self._blaming(migration.id):
            return (*migration.reads, *migration.names(self._documents(migration.inputs), self.chosen()))

    def broken_rules(self) -> tuple[str, ...]:
        """Return a sentence for each deviation from what the pack says must always be true of the target layout."""
        found: list[str] = []
        for check in self.pack.checks:
            if not self.pack.order.covers(check.targets, self.target_label()):
                continue
            with self._blaming(check.id):
                documents = self._documents(check.inputs)
                named = check.names(documents, self.chosen()) if check.names is not None else ()
                inventory, _ = scan(self.disk, (*check.reads, *named))
                state = DiskState(
                    target=self.layout(),
                    checkpoint=self.checkpoint(),
                    inventory=inventory,
                    documents=documents,
                    options=self.chosen(),
                )
                found += check.holds(state)
        return tuple(found)

    def place_of(self, wanted: Input) -> str:
        """Return where an input lies: relative to the root, or as an absolute path."""
        return f"{self.outside[wanted.outside].path.rstrip('/')}/{wanted.path}" if wanted.outside else wanted.path

    def make_plan(self, phase: str, *, may_rename: bool = True) -> Plan:
        """Return what there is to do in one phase; without `may_rename` everything is copied."""
        label = self.target_label()
        checkpoint = self.checkpoint()
        composition = Composition()
        found: list[Skip] = []
        for migration in chain(self.pack.migrations, self.pack.order, label, phase):
            found.extend(self._propose(migration, checkpoint, composition))
        proposals = composition.proposals
        if refusals := tuple(skip for proposal in proposals for skip in proposal.refusals):
            raise refused_by(refusals)
        names = ", ".join(proposal.migration for proposal in proposals)
        for migration in ended(self.pack.migrations, self.pack.order, label, phase):
            with self._blaming(migration.id):
                inventory, _ = scan(self.disk, migration.reads)
            found += [Skip(path=item.path, reason=Reason.NO_READER, detail=migration.ended) for item in inventory.items]
        operations = (operation for proposal in proposals for operation in proposal.operations)
        facts = survey(self.disk, operations, copies=self.trial is not None or not may_rename, leaving=self.leaving)
        concerned = checkpoint.problem is None or any(p.operations or p.skips for p in proposals)
        source = self.source_label()
        with self._blaming(names):
            return plan(
                # Let go of as they are taken: of very many volumes steps and operations together are large.
                (proposals.pop(0) for _ in range(len(proposals))),
                facts,
                self.layout(),
                pack=self.pack.name,
                source=source,
                agents=self.agents,
                found=tuple(found),
                warnings=checkpoint.warnings if concerned else (),
                may_rename=may_rename,
                trial=self.trial,
                pending=self.pending,
            )

    def _propose(self, migration: Migration, checkpoint: Checkpoint, composition: Composition) -> tuple[Skip, ...]:
        """Add what a migration wants; returns what of that lies in its slots no rule recognises."""
        slots = self.slots_of(migration)
        with self._blaming(migration.id):
            inventory, skips = scan(self.disk, slots)
        folders = (wanted.path for wanted in migration.inputs if wanted.directory and not wanted.outside)
        documents = composition.seen(self._documents(migration.inputs), folders)
        state = DiskState(
            target=self.layout(),
            checkpoint=checkpoint,
            inventory=inventory,
            documents=documents,
            options=self.chosen(),
            waiting=self.waiting or self.pending,
        )
        with self._blaming(migration.id):
            proposal = migration.plan(state)
            _check_slots(migration, proposal)
            composition.add(proposal, documents)
        return skips

    @contextmanager
    def _blaming(self, migrations: str) -> Iterator[None]:
        """Turn a mistake in a pack, such as a slot that its layout does not have, into PackDamagedError."""
        try:
            yield
        except (UpgradeConverterError, OSError, MemoryError):
            raise
        except Exception as error:
            raise PackDamagedError(self.pack.name, f"migration {migrations}", f"expected a plan, found {error!r}") from error

    def concealer(self) -> Concealer:
        """Return what leaves out names that only the vault knows; of a vault that is none, nothing is left out."""
        vault = self.pack.vault or ""
        is_vault = bool(vault) and self.disk.find(vault) is not None and self.disk.domain(vault).home == vault
        slots = (slot for layout in self.pack.layouts.values() for slot in layout.slots)
        return Concealer(vault if is_vault else "", frozenset(slot.directory for slot in slots))

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
    migrations, order = session.pack.migrations, session.pack.order
    for migration in (*chain(migrations, order, label, phase), *ended(migrations, order, label, phase)):
        slots = session.slots_of(migration)
        paths |= dict.fromkeys(slot.stem for slot in slots)
        paths |= dict.fromkeys(place for slot in slots for place in places(session.disk, slot))
        paths |= dict.fromkeys(map(session.place_of, migration.inputs))
    if skips:
        paths |= dict.fromkeys(map(session.place_of, session.pack.inputs))
        paths |= dict.fromkeys(path for skip in skips for path in (skip.path, skip.rival))
    # A name with a newline does not fit into the stamp; the directory that holds it does.
    return tuple(sorted(path if "\n" not in path else path.rpartition("/")[0] for path in paths if path))


def _check_slots(migration: Migration, proposal: Proposal) -> None:
    """Raise ValueError where a migration puts something into a slot that it does not say it writes."""
    declared = {slot.name for slot in migration.writes}
    wanted = {getattr(operation, "slot", None) for operation in proposal.operations} - {None}
    wanted |= {note.slot for operation in proposal.operations for note in getattr(operation, "beside", ())}
    if unknown := wanted - declared:
        message = f"slot {', '.join(sorted(map(str, unknown)))} is not among those that it writes"
        raise ValueError(message)
