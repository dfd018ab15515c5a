"""Writes what was found into the page for people, `docs/performance.md`, between two marks. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .ways import OURS, WAYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BEGIN, END = "<!-- what was found, written by `make bench WRITE=1` -->", "<!-- end of what was found -->"
_RIVALS = tuple(name for name in WAYS if name != OURS)
_MIB = 1 << 20
# What takes less of the whole is not worth a word.
_WORTH = 0.05

Document = dict[str, Any]


def filled(page: str, results: Sequence[Document]) -> str:
    """Return a page with the tables of these results in the place of those that it has; ValueError where it has no marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        message = f"expected the marks {BEGIN} and {END}"
        raise ValueError(message)
    return "\n".join([head + BEGIN, "", *_tables(results), "", END]) + tail


def _tables(results: Sequence[Document]) -> Iterator[str]:
    moving = [each for each in results if OURS in each["ways"]]
    yield f"| case | ours | {' | '.join(_RIVALS)} | MiB | where our time goes |"
    yield "|---|---|" + "---|" * (len(_RIVALS) + 2)
    for each in moving:
        ways, ours = each["ways"], each["ways"][OURS]
        rivals = " | ".join(_against(ways.get(name)) for name in _RIVALS)
        memory = _mebibytes(ours["largest_process_bytes"])
        yield f"| `{each['case']}` on {each['ground']} | {_seconds(ours)} | {rivals} | {memory} | {_parts(ours)} |"
    yield ""
    yield "| start | seconds | ratio | MiB |"
    yield "|---|---|---|---|"
    for each in (each for each in results if OURS not in each["ways"]):
        for name, way in each["ways"].items():
            ratio = "" if way["ratio"] is None else f"{way['ratio']:.2f}"
            said = _seconds(way) if way["median_seconds"] else way["about"]
            yield f"| `{each['case']}`: {name} | {said} | {ratio} | {_mebibytes(way['largest_process_bytes'])} |"
    yield ""
    yield from _surroundings(results)


def _seconds(way: Document) -> str:
    if way["problem"] or not way["median_seconds"]:
        return str(way["problem"])
    return f"{way['median_seconds']:.3g}"


def _against(way: Document | None) -> str:
    if way is None:
        return ""
    return _seconds(way) + ("" if way["ratio"] is None else f" ({way['ratio']:.2f})")


def _parts(ours: Document) -> str:
    spent = ours["phases_seconds"] or {}
    whole = sum(spent.values())
    shares = sorted(((seconds / whole, name) for name, seconds in spent.items()), reverse=True) if whole else []
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= _WORTH)


def _mebibytes(size: int | None) -> str:
    return "" if not size else f"{size / _MIB:.0f}"


def _surroundings(results: Sequence[Document]) -> Iterator[str]:
    for commit in dict.fromkeys(each["commit"] for each in results):
        found = [each for each in results if each["commit"] == commit]
        first, cases = found[0], ", ".join(dict.fromkeys(f"`{each['case']}` on {each['ground']}" for each in found))
        yield (
            f"- {first['date']}, commit {commit[:12]}, Linux {first['kernel']}, Python {first['python']}, "
            f"{first['processors']} processors: {cases}"
        )
