"""What is written is well-formed, keeps what other runs have found, and names no place of the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page, plot, report
from benchmarks.__main__ import EVIDENCE, PAGE
from benchmarks.figures import Found, Result, Sample

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def result(case: str = "case", ground: str = "vault", *names: str) -> Result:
    """Return a result of ours, of a rival that is ten times slower, and of one that refused."""
    ours = Found(
        name=names[0] if names else "upgradeconverter", samples={0: Sample(seconds=1.0), 1: Sample(seconds=3.0)}, ratio=1.0
    )
    slower = Found(name="cp & <rsync>", samples={0: Sample(seconds=10.0, largest=5 << 20, allocated=7 << 20)}, ratio=0.1)
    refused = Found(name="refused", samples={0: Sample(seconds=0.1, problem="refused (NoSpace: <none>)")})
    return Result(
        case=case,
        about="what it is",
        ground=ground,
        ratio="ours / this",
        cache="cold",
        scale=0.5,
        files=3,
        size=9 << 20,
        found=[ours, slower, refused],
    )


def test_table() -> None:
    """The table has medians, ratios and sizes of what counts, and the reason of what does not."""
    lines = list(report.table(result()))
    assert lines[0] == "case on vault: what it is, at scale 0.5"
    rows = {line.split("  ")[1].strip(): line.split() for line in lines[3:]}
    assert rows["upgradeconverter"][1:5] == ["2.0000", "1.5000", "2.5000", "1.000"]
    assert rows["cp & <rsync>"][-6:] == ["10.0000", "0.100", "5.0", "-", "7.0", "-"]
    assert rows["refused"][1] == "-"
    assert any(line.strip() == "refused (NoSpace: <none>)" for line in lines)


def test_document() -> None:
    """JSON has each way with its times, and neither time nor ratio of one that refused."""
    document = json.loads(json.dumps(report.document_of(result())))
    ours, slower, refused = document["ways"].values()
    assert (ours["seconds"], ours["median_seconds"], ours["quartiles_seconds"]) == ([1.0, 3.0], 2.0, [1.5, 2.5])
    assert (slower["ratio"], slower["largest_process_bytes"], slower["allocated_bytes"]) == (0.1, 5 << 20, 7 << 20)
    assert (refused["median_seconds"], refused["ratio"], refused["problem"]) == (None, None, "refused (NoSpace: <none>)")


def test_later_results_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    """A case that is measured again on the same ground is replaced, and all others stay."""
    place = tmp_path / "evidence/performance.json"
    assert report.read(place) == []
    first = [report.document_of(result("one")), report.document_of(result("two"))]
    report.write(place, first)
    again = [report.document_of(result("one", "vault", "later")), report.document_of(result("one", "plain"))]
    report.write(place, report.merged(report.read(place), again))
    found = [(each["case"], each["ground"], next(iter(each["ways"]))) for each in report.read(place)]
    assert found == [("one", "plain", "upgradeconverter"), ("one", "vault", "later"), ("two", "vault", "upgradeconverter")]


def test_plot_is_well_formed() -> None:
    """Each way with a time has a bar, as long as its logarithm; one without has its reason; names cannot break it."""
    document = report.document_of(result())
    picture = ET.fromstring(plot.drawn([document]))  # noqa: S314 - our own
    texts = ["".join(each.itertext()) for each in picture.iter(f"{SVG}text")]
    assert picture.tag == f"{SVG}svg"
    assert {"upgradeconverter", "cp & <rsync>", "refused (NoSpace: <none>)", "2 s (1.00)", "10 s (0.10)"} <= set(texts)
    widths = [float(each.attrib["width"]) for each in picture.iter(f"{SVG}rect")][1:]
    assert len(widths) == 2
    assert widths[0] / widths[1] == pytest.approx(0.301, abs=0.01)


def test_plot_of_nothing() -> None:
    """Without any result there is an empty picture, and no error."""
    assert ET.fromstring(plot.drawn([])).tag == f"{SVG}svg"  # noqa: S314 - our own


def test_page() -> None:
    """The tables stand between their marks, whatever stood there before, and nothing else is touched."""
    ours = report.document_of(result("case", "vault"))
    ours["ways"]["mv"] = {**ours["ways"]["upgradeconverter"], "ratio": 0.25}
    ours["ways"]["upgradeconverter"]["phases_seconds"] = {"planning": 0.01, "copying": 1.5, "the rest": 0.49}
    idle = report.document_of(result("idle", "any", "bare interpreter"))
    empty = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    text = page.filled(empty, [ours, idle])
    assert text.startswith(f"before\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\nafter\n")
    assert "| `case` on vault | 2 |  |  | 2 (0.25) |  |  | copying 75%, the rest 24% |" in text
    assert "| `idle`: bare interpreter | 2 | 1.00 |  |" in text
    assert "old" not in text
    assert page.filled(text, [ours, idle]) == text


def test_page_without_marks() -> None:
    """A page that has no place for them is not written over."""
    with pytest.raises(ValueError, match="expected the marks"):
        page.filled("nothing\n", [])


def test_page_says_what_was_found() -> None:
    """The figures on the page are those of the evidence."""
    text = PAGE.read_text(encoding="utf-8")
    assert page.filled(text, report.read(EVIDENCE)) == text
