"""Which migrations lead to a target layout, in which order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from upgradeconverter.model.version import LayoutOrder, Range


class Link(Protocol):
    """What the chain needs to know of a migration."""

    @property
    def id(self) -> str:
        """Stable name."""
        ...

    @property
    def phase(self) -> str:
        """Phase it belongs to."""
        ...

    @property
    def targets(self) -> tuple[Range, ...]:
        """Target layouts for which it runs."""
        ...

    @property
    def ended(self) -> str:
        """Why it does not run for a layout behind the last of its targets; empty where nothing is to be said."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """Migrations that must come first."""
        ...


class ChainError(Exception):
    """A pack's migrations cannot be put in order; found when the pack is checked."""


M = TypeVar("M", bound=Link)


def chain(migrations: tuple[M, ...], order: LayoutOrder, target: str, phase: str) -> tuple[M, ...]:
    """Return the migrations of a phase that apply to a target layout, each behind those it must follow."""
    wanted = [m for m in migrations if m.phase == phase and order.covers(m.targets, target)]
    here = {m.id for m in wanted}
    ordered: list[M] = []
    while wanted:
        placed = {m.id for m in ordered}
        ready = next((m for m in wanted if all(a in placed or a not in here for a in m.after)), None)
        if ready is None:
            message = f"circle among {', '.join(m.id for m in wanted)}"
            raise ChainError(message)
        ordered.append(ready)
        wanted.remove(ready)
    return tuple(ordered)


def ended(migrations: tuple[M, ...], order: LayoutOrder, target: str, phase: str) -> tuple[M, ...]:
    """Return the migrations of a phase that have something to say of a target layout for which they run no more."""
    concerned = (m for m in migrations if m.phase == phase and m.ended and not order.covers(m.targets, target))
    return tuple(m for m in concerned if any(each.until is not None and order.reached(each.until, target) for each in m.targets))
