"""What several migrations make of one file, one after the other, is one step from where it lies to where it ends."""

from __future__ import annotations

from upgradeconverter.model.entry import Document
from upgradeconverter.model.operation import Divergence, Note, Operation, Proposal, Rewrite, Write
from upgradeconverter.planning.compose import Composition


def rewrite(source: str, target: str, content: bytes, *also_retire: str) -> Rewrite:
    """Return a rewriting whose basis is named after its source."""
    return Rewrite(source=source, target=target, content=content, basis=f"of {source}", slot="slot", also_retire=also_retire)


def document(path: str, content: bytes | None, mtime_ns: int = 7) -> Document:
    """Return a document."""
    return Document(path=path, content=content, mtime_ns=mtime_ns, problem="" if content is not None else "missing")


def composed(*operations: Operation) -> tuple[Composition, list[tuple[str, Operation]]]:
    """Compose one operation of each migration `1`, `2`, …; returns also what is left to do."""
    composition = Composition()
    found = {"old/a": document("old/a", b"a")}
    for number, operation in enumerate(operations, start=1):
        seen = composition.seen(found, ())
        composition.add(Proposal(migration=str(number), operations=(operation,)), seen)
    return composition, [(each.migration, operation) for each in composition.proposals for operation in each.operations]


def test_one_after_the_other() -> None:
    """Two places and a form in between are not there on the way; what lies in the way there is set aside."""
    _, found = composed(
        rewrite("old/a", "mid/a", b"m", "old"), rewrite("mid/a", "new/a", b"n", "mid"), rewrite("new/a", "new/a", b"!")
    )
    assert found == [("1, 2, 3", rewrite("old/a", "new/a", b"!", "old", "mid/a", "mid"))]


def test_of_nothing() -> None:
    """What is made of nothing stays that."""
    _, found = composed(Write(target="mid/a", content=b"m", slot="one"), rewrite("mid/a", "new/a", b"n"))
    assert found == [("1, 2", Write(target="new/a", content=b"n", slot="slot"))]


def test_what_is_written_beside() -> None:
    """What is written with either is written with both."""
    one, two = Note("a", b"a", "slot"), Note("b", b"b", "slot")
    first = Write(target="mid/a", content=b"m", slot="one", beside=(one,))
    second = Rewrite(source="mid/a", target="mid/a", content=b"n", basis="", slot="slot", beside=(two,))
    (_, found) = composed(first, second)[1][0]
    assert isinstance(found, Write)
    assert found.beside == (one, two)


def test_others_stay() -> None:
    """What has nothing to do with each other is left as it was proposed."""
    first, second = rewrite("old/a", "new/a", b"a"), rewrite("old/b", "new/b", b"b")
    assert composed(first, second)[1] == [("1", first), ("2", second)]


def test_policy() -> None:
    """At the last place the last migration decides."""
    last = Rewrite(source="mid/a", target="new/a", content=b"n", basis="", slot="slot", divergence=Divergence.SOURCE)
    (_, found) = composed(rewrite("old/a", "mid/a", b"m"), last)[1][0]
    assert isinstance(found, Rewrite)
    assert (found.divergence, found.basis) == (Divergence.SOURCE, "of old/a")


def test_in_place_after_that() -> None:
    """What is changed where it is has no policy of its own."""
    first = Rewrite(source="old/a", target="new/a", content=b"m", basis="", slot="slot", divergence=Divergence.SOURCE)
    (_, found) = composed(first, rewrite("new/a", "new/a", b"n"))[1][0]
    assert isinstance(found, Rewrite)
    assert found.divergence is Divergence.SOURCE


def test_time_of_what_stays() -> None:
    """What says the same as before is as old as before."""
    composition = Composition()
    found = {"old/a": document("old/a", b"a", 3), "new/a": document("new/a", b"n", 5)}
    composition.add(Proposal(migration="1", operations=(rewrite("old/a", "new/a", b"n"),)), found)
    assert composition.seen(found, ())["new/a"].mtime_ns == 5


def test_what_is_seen() -> None:
    """The next migration sees the result with the time of what it was made of, and not what that was."""
    composition, _ = composed(rewrite("old/a", "mid/a", b"m", "old/a.bak"))
    before = {"old/a": document("old/a", b"a"), "old/a.bak": document("old/a.bak", b"b"), "mid/a": document("mid/a", None, 0)}
    seen = composition.seen(before, ("mid",))
    assert {key: (each.content, each.mtime_ns) for key, each in seen.items()} == {
        "old/a": (None, 0),
        "old/a.bak": (None, 0),
        "mid/a": (b"m", 7),
    }
    assert composition.seen({}, ("mid",)) == {"mid/a": seen["mid/a"]}
    assert composition.seen({}, ("old",)) == {}
