"""What an agent keeps between boots: one JSON file for each item of a topic, in a directory of the topic's name. Pure.

A file's name without what follows the first `.json` is its key. Since 8.3.1 the version before lies beside it as `.bak`; it
counts where the file itself is missing or empty, and not where that is damaged. Source: lf-edge/eve
`pkg/pillar/pubsub/socketdriver`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from upgradeconverter.packs.api import Document

BACKUP = ".bak"
RESTARTED = "restarted"


class TopicItem(Struct, frozen=True):
    """One item: its key, the file that counts, and what lies beside that and goes with it."""

    key: str
    document: Document
    beside: tuple[str, ...]


def items_of(documents: Mapping[str, Document]) -> Iterator[TopicItem]:
    """Yield the items of a topic, given what lies in its directory by name, in the order of their keys."""
    names = {name.removesuffix(BACKUP) for name in documents}
    for name in sorted(name for name in names if name.endswith(".json")):
        both = [documents[each] for each in (name, name + BACKUP) if each in documents]
        full = [each for each in both if each.content or each.problem]
        counts = (full or both)[0]
        yield TopicItem(name.partition(".json")[0], counts, tuple(each.path for each in both if each is not counts))
