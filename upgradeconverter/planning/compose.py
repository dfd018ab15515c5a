"""Several migrations may make something of one file, one after the other: each sees what those before it make of it. Pure.

On the disk that is one step: what lies there goes straight to its last place, in its last form, and nothing in between is ever
there. Only what is rewritten is composed like that; whoever moves or retires what another migration makes is told by the planner
that it is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from upgradeconverter.model.entry import Document
from upgradeconverter.model.operation import Operation, Proposal, Rewrite, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Made = Rewrite | Write


class Composition(Struct):
    """What migrations have proposed so far.

    Attributes:
        proposals: what each wants, in order; what a later one went on with is no longer in an earlier one.
        made: what lies at a path once it is carried out, with the document that it was made of.
    """

    proposals: list[Proposal] = field(default_factory=list)
    made: dict[str, Document] = field(default_factory=dict)

    def seen(self, documents: Mapping[str, Document], folders: Iterable[str]) -> dict[str, Document]:
        """Return documents as the next migration is to see them; `folders` are those of which it sees every file."""
        folders = tuple(folders)
        found = {key: self.made.get(key, document) for key, document in documents.items()}
        new = {path: made for path, made in self.made.items() if path not in found and path.rpartition("/")[0] in folders}
        # In a folder there is no document for what is missing.
        return {key: each for key, each in (found | new).items() if key in documents or each.content is not None}

    def add(self, proposal: Proposal, documents: Mapping[str, Document]) -> None:
        """Take what a migration wants, which has seen these documents."""
        operations: list[Operation] = []
        for operation in proposal.operations:
            earlier = self._take_made(operation.source) if isinstance(operation, Rewrite) else None
            if isinstance(operation, Rewrite) and earlier is not None:
                migrations, made = earlier
                self.proposals.append(
                    Proposal(migration=f"{migrations}, {proposal.migration}", operations=(_joined(made, operation),))
                )
            else:
                operations.append(operation)
            if isinstance(operation, Rewrite | Write):
                self._note(operation, documents)
        self.proposals.append(replace(proposal, operations=tuple(operations)))

    def _take_made(self, path: str) -> tuple[str, _Made] | None:
        """Take back what an earlier migration makes at a path; None where none does."""
        for number, proposal in enumerate(self.proposals):
            for operation in proposal.operations:
                if isinstance(operation, Rewrite | Write) and operation.target == path:
                    left = tuple(each for each in proposal.operations if each is not operation)
                    self.proposals[number] = replace(proposal, operations=left)
                    return proposal.migration, operation
        return None

    def _note(self, operation: _Made, documents: Mapping[str, Document]) -> None:
        source = operation.source if isinstance(operation, Rewrite) else operation.target
        # Where it says what the target says already, that is as old as it was.
        same = documents.get(operation.target)
        basis = same if same is not None and same.content == operation.content else documents.get(source)
        gone = (source, *operation.also_retire) if isinstance(operation, Rewrite) else ()
        self.made |= {path: Document(path=path, content=None, problem="missing") for path in gone}
        time = basis.mtime_ns if basis is not None else 0
        self.made[operation.target] = Document(path=operation.target, content=operation.content, mtime_ns=time)


def _joined(first: _Made, second: Rewrite) -> _Made:
    """Return the one operation that does what two do, one after the other."""
    notes = (*first.beside, *second.beside)
    if isinstance(first, Write):
        return replace(first, target=second.target, content=second.content, slot=second.slot, beside=notes)
    beside = dict.fromkeys((*first.also_retire, first.target, *second.also_retire))
    kept = tuple(path for path in beside if path not in (first.source, second.target))
    is_in_place = second.source == second.target
    divergence = first.divergence if is_in_place else second.divergence
    of_target = first.of_target if is_in_place else second.of_target
    whole = replace(second, source=first.source, basis=first.basis, also_retire=kept, beside=notes)
    return replace(whole, divergence=divergence, of_target=of_target)
