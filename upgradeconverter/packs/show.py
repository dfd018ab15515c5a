"""What a pack declares, as a table and as a graph: layouts, and the migrations that lead from one to the next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upgradeconverter.planning.chain import chain, ended

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from upgradeconverter.model.version import Range
    from upgradeconverter.packs.api import Migration, Pack, Slot


def table(pack: Pack) -> list[dict[str, Any]]:
    """Return a row for each migration, phase by phase in the order in which they come."""
    rows = (migration for phase in pack.phases for migration in pack.migrations if migration.phase == phase.name)
    return [_row(migration) for migration in rows]


def path(pack: Pack, source: str, target: str) -> list[dict[str, Any]]:
    """Return a row for each migration that may have something to do on the way from one layout to another.

    Raises:
        NoPathError: the target lies before the source.
    """
    pack.order.check_forward(source, target)
    found: list[dict[str, Any]] = []
    for phase in pack.phases:
        found += [_row(each) for each in chain(pack.migrations, pack.order, target, phase.name)]
        over = ended(pack.migrations, pack.order, target, phase.name)
        found += [_row(each) | {"ended": each.ended} for each in over if _began_before(pack, each, target)]
    return found


def _began_before(pack: Pack, migration: Migration, target: str) -> bool:
    return any(pack.order.reached(each.since, target) for each in migration.targets)


def _row(migration: Migration) -> dict[str, Any]:
    return {
        "migration": migration.id,
        "phase": migration.phase,
        "first": migration.targets[0].since,
        "last": f"before {migration.targets[-1].until}" if migration.targets[-1].until else "latest",
        "layouts": in_words(migration.targets),
        "reads": _directories(migration.reads),
        "writes": _directories(migration.writes),
        "owner": ", ".join(sorted({slot.owner for slot in migration.writes})),
        "readers": ", ".join(sorted({reader for slot in migration.writes for reader in slot.readers})),
        "reversible": migration.reversible,
        "summary": migration.summary,
    }


def _directories(slots: Iterable[Slot]) -> list[str]:
    return list(dict.fromkeys(slot.directory for slot in slots))


def in_words(targets: Iterable[Range]) -> str:
    """Return ranges of layouts as people say them."""
    return ", ".join(f"{each.since} to before {each.until}" if each.until else f"since {each.since}" for each in targets)


def graph(pack: Pack) -> str:
    """Return which directories each migration reads and writes, as a Mermaid flowchart."""
    return "\n".join(["flowchart LR", *dict.fromkeys(_edges(pack))])


def _edges(pack: Pack) -> Iterator[str]:
    names: dict[str, str] = {}
    for number, migration in enumerate(pack.migrations):
        work = f'm{number}(["{migration.id}"])'
        for source in _directories(migration.reads):
            yield f'  {names.setdefault(source, f"d{len(names)}")}["{source}"] --> {work}'
        for target in _directories(migration.writes):
            yield f'  {work} --> {names.setdefault(target, f"d{len(names)}")}["{target}"]'
