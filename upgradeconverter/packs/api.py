"""All that a pack may import: words, never effects.

A pack is a folder with an `__init__.py` that defines `PACK`. It declares layouts and migrations; its functions are pure: they
get data and return data, have no clock, no disk and no log, and import only this module and their own siblings (relatively).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from upgradeconverter.model.entry import (
    FORMAT_XATTR,
    OWNER_XATTR,
    XATTR_PREFIX,
    Document,
    Entry,
    Inventory,
    Item,
    Kind,
)
from upgradeconverter.model.layout import Layout, Part, Slot, Zone
from upgradeconverter.model.operation import (
    Copy,
    Divergence,
    EnsureDirectory,
    Link,
    Move,
    Note,
    Operation,
    Proposal,
    Relocate,
    Retire,
    Rewrite,
    SetAttributes,
    Skip,
    Write,
)
from upgradeconverter.model.outcome import Reason
from upgradeconverter.model.version import LayoutOrder, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "FORMAT_XATTR",
    "OWNER_XATTR",
    "XATTR_PREFIX",
    "Annex",
    "Check",
    "Checkpoint",
    "Copy",
    "DiskState",
    "Divergence",
    "Document",
    "EnsureDirectory",
    "Entry",
    "Input",
    "Inventory",
    "Item",
    "Kind",
    "Layout",
    "LayoutOrder",
    "Link",
    "Migration",
    "Move",
    "Note",
    "Operation",
    "Pack",
    "Part",
    "Phase",
    "Proposal",
    "Range",
    "Reason",
    "Relocate",
    "Retire",
    "Rewrite",
    "SetAttributes",
    "Skip",
    "Slot",
    "Write",
    "Zone",
]


class Phase(Struct, frozen=True, kw_only=True):
    """One moment of the boot.

    Attributes:
        needs_vault: whether nothing is touched until the vault is usable.
        moves_trees: whether what it moves may hold what needs root's power beyond owners and modes, such as device nodes, file
            capabilities, immutable files and overlays' own attributes: containers' trees do.
    """

    name: str
    needs_vault: bool
    moves_trees: bool = True


class Input(Struct, frozen=True, kw_only=True):
    """A small file, or every regular file directly in a directory, that is read as documents.

    Attributes:
        path: relative to the root, or to the directory outside of it that `outside` names.
        directory: read the files inside rather than the path itself.
        limit: largest number of bytes that is read; a larger file becomes a document with a problem. The usual one is more than
            twice what the configuration of a hundred thousand volumes takes.
        outside: name of a directory in `Pack.outside`, which is only ever read; empty for the root.
    """

    path: str
    directory: bool = False
    limit: int = 64 << 20
    outside: str = ""

    @property
    def key(self) -> str:
        """By which a document, or the directory that holds it, is found."""
        return f"{self.outside}:{self.path}" if self.outside else self.path


class Annex(Struct, frozen=True, kw_only=True):
    """A directory or file outside of the root that state is taken from; people say where it is.

    In the disk it is called by its name with `:` behind it, and what is in it `name:/path`; one of several `name.key:`. Nothing
    is ever renamed between it and the root: what moves from there is copied.

    Attributes:
        summary: one sentence for people.
        is_file: whether it is one file; the directory that holds it shows nothing else then.
        each: whether there may be several, each given with a key of its own.
        keeps: whether a run that takes something from it is one on trial: all stays there until it is confirmed.
    """

    summary: str
    is_file: bool = False
    each: bool = False
    keeps: bool = False


class Check(Struct, frozen=True, kw_only=True):
    """What must always be true of a layout, beyond what its slots say: for `verify`.

    Attributes:
        id: stable name.
        inputs: what it gets as documents.
        reads: slots that are scanned for it; `names` adds those that only its inputs and the options name, as of a migration.
        targets: layouts of which it must be true.
        holds: pure function from state to a sentence for each deviation, with the path first.
    """

    id: str
    reads: tuple[Slot, ...]
    targets: tuple[Range, ...]
    holds: Callable[[DiskState], tuple[str, ...]]
    inputs: tuple[Input, ...] = ()
    names: Callable[[Mapping[str, Document], Mapping[str, str]], tuple[Slot, ...]] | None = None


class Checkpoint(Struct, frozen=True, kw_only=True):
    """What the device's own saved configuration says.

    Attributes:
        content: the pack's own type; only the pack looks inside.
        source: path of the document that was used, empty when none was.
        problem: the reason why there is no content, None when there is.
        detail: for people, what is wrong with which file.
        warnings: for the report.
    """

    content: object | None
    source: str = ""
    problem: Reason | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()


class DiskState(Struct, frozen=True, kw_only=True):
    """Everything that a migration may know.

    Attributes:
        target: the layout to be reached.
        checkpoint: the device's own configuration.
        inventory: what lies in the slots that the migration reads.
        documents: what the migration's inputs say, by `Input.key`; of a directory, by that, a slash and the name.
        options: what was chosen of the pack's options, and where in the disk each annex is that was given, by name.
        waiting: sources that a trial was made of, which are there beside what was made of them until it is confirmed.
    """

    target: Layout
    checkpoint: Checkpoint
    inventory: Inventory
    documents: Mapping[str, Document] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()

    def documents_in(self, directory: Input) -> dict[str, Document]:
        """Return the documents of an input that is a directory, by name."""
        start = f"{directory.key}/"
        return {key.removeprefix(start): document for key, document in self.documents.items() if key.startswith(start)}

    def in_slot(self, slot: str) -> tuple[Item, ...]:
        """Return the recognised items of one slot, sorted by path."""
        return self.inventory.in_slot(slot)


class Migration(Struct, frozen=True, kw_only=True):
    """One conversion of one kind of state.

    Attributes:
        id: stable name, seen in plans, reports and history.
        summary: one sentence for people.
        phase: name of the phase it belongs to.
        reads: slots that are scanned for it.
        writes: slots that something is put into.
        reversible: whether all of it can be taken back.
        inputs: what it gets as documents.
        names: slots that only its inputs and the options name, given both.
        ended: why it does not run for a layout behind the last of its targets; what it would work on is named with that.
        targets: layouts for which it runs.
        after: ids of migrations that must come first.
        plan: pure function from state to proposal.
    """

    id: str
    summary: str
    phase: str
    reads: tuple[Slot, ...]
    targets: tuple[Range, ...]
    plan: Callable[[DiskState], Proposal]
    after: tuple[str, ...] = ()
    writes: tuple[Slot, ...] = ()
    reversible: bool = True
    inputs: tuple[Input, ...] = ()
    names: Callable[[Mapping[str, Document], Mapping[str, str]], tuple[Slot, ...]] | None = None
    ended: str = ""


class Pack(Struct, frozen=True, kw_only=True):
    """One system's layouts and migrations.

    Attributes:
        order: all layout labels, oldest first, and how words resolve to them.
        layouts: layout by label, for every label but the first (legacy) one.
        default_target: word used when neither the user nor the system says anything.
        release_files: absolute paths whose first line names the running release, first found wins.
        others: places whose owner is known and which are never converted.
        options: what people may choose, each with all that it may be, the usual first; also a flag of that name.
        annexes: places outside of the root that state is taken from, by name; also a flag of that name.
        checks: what else must be true of a layout.
        outside: directories outside of the root that are read, by name.
        vault: directory that phases with `needs_vault` need, relative to the root.
        inputs: what `read_checkpoint` gets, by `Input.key`.
        read_checkpoint: makes of them, and of what was chosen of the `options`, what the migrations know of the configuration.
    """

    name: str
    summary: str
    order: LayoutOrder
    layouts: Mapping[str, Layout]
    phases: tuple[Phase, ...]
    migrations: tuple[Migration, ...]
    default_target: str
    inputs: tuple[Input, ...]
    read_checkpoint: Callable[[Mapping[str, Document], Mapping[str, str]], Checkpoint]
    release_files: tuple[str, ...] = ()
    others: tuple[Slot, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    annexes: Mapping[str, Annex] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    outside: Mapping[str, str] = field(default_factory=dict)
    vault: str | None = None
    default_persist: str = "/persist"
    notes: tuple[str, ...] = field(default=())
