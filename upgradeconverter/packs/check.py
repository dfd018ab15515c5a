"""Static health of a pack: everything that can be seen to be wrong without a disk."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upgradeconverter.packs.api import Pack, Slot


def check(pack: Pack) -> tuple[str, ...]:
    """Return what is wrong with a pack, each as one sentence; empty when it is sound."""
    problems: list[str] = []
    phases = {phase.name for phase in pack.phases}
    ids = Counter(migration.id for migration in pack.migrations)
    problems += [f"migration {name} is declared {count} times" for name, count in ids.items() if count > 1]
    for migration in pack.migrations:
        if migration.phase not in phases:
            problems.append(f"migration {migration.id}: phase {migration.phase} is not declared")
        problems += [f"migration {migration.id}: {name} comes after nothing" for name in migration.after if name not in ids]
        labels = [label for each in migration.targets for label in (each.since, each.until) if label is not None]
        unknown = [label for label in labels if label not in pack.order.labels]
        problems += [f"migration {migration.id}: layout {label} is not declared" for label in unknown]
        strange = [each.outside for each in migration.inputs if each.outside and each.outside not in pack.outside]
        problems += [f"migration {migration.id}: nothing outside is called {name}" for name in strange]
        for slot in migration.reads:
            problems += _check_pattern(migration.id, slot)
    for each in pack.checks:
        problems += [problem for slot in each.reads for problem in _check_pattern(each.id, slot)]
    both = sorted(set(pack.options) & set(pack.annexes))
    problems += [f"{name} is an option and an annex" for name in both]
    problems += [f"annex {name}: a name has no dot, colon or slash" for name in pack.annexes if set(name) & set(".:/")]
    problems += [f"layout {label} has no slots" for label in pack.order.labels[1:] if label not in pack.layouts]
    if pack.order.resolve(pack.default_target) is None:
        problems.append(f"default target {pack.default_target} is not a layout")
    return tuple(problems)


def _check_pattern(migration: str, slot: Slot) -> list[str]:
    if slot.pattern is None:
        return [] if slot.whole else [f"migration {migration}: slot {slot.name} is read but has no pattern"]
    try:
        re.compile(slot.pattern)
    except re.error as error:
        return [f"migration {migration}: slot {slot.name} has a bad pattern ({error})"]
    return []
