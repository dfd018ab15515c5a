"""Draws the medians of all results as one SVG: a bar for each way, on a logarithmic scale. Pure.

Drawn by hand, since a plotting library would be the largest of all packages that developers have to install, for bars and words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WIDTH, _LEFT, _RIGHT, _ROW, _TITLE, _TOP, _BOTTOM = 1000, 300, 230, 16, 30, 50, 20
_OURS, _OTHERS, _INK, _FAINT = "#c2410c", "#94a3b8", "#1e293b", "#e2e8f0"


def drawn(results: Sequence[dict[str, Any]]) -> str:
    """Return the picture; a way without a time has its reason in the place of a bar."""
    seconds = [each["median_seconds"] for result in results for each in result["ways"].values() if each["median_seconds"]]
    low, high = _decades(seconds)
    body: list[str] = []
    top = float(_TOP)
    for result in results:
        top += _TITLE
        title = f"{result['case']} on {result['ground']}: {result['about']}" + _scaled(result["scale"])
        body.append(_text(10, top - 8, title, weight="bold"))
        for name, way in result["ways"].items():
            body += _bar(name, way, top, low, high)
            top += _ROW
    height = top + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:g}" viewBox="0 0 {_WIDTH} {height:g}">'
    ground = f'<rect width="{_WIDTH}" height="{height:g}" fill="white"/>'
    said = "Seconds, median, logarithmic; behind each bar its ratio (see ratio_is in the JSON)"
    parts = (head, ground, _text(10, 18, said), *_grid(low, high, height), *body, "</svg>")
    return "\n".join(parts) + "\n"


def _decades(seconds: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which all lie."""
    low = math.floor(math.log10(min(seconds, default=1.0)))
    return low, max(low + 1, math.ceil(math.log10(max(seconds, default=1.0))))


def _place(seconds: float, low: int, high: int) -> float:
    share = (math.log10(seconds) - low) / (high - low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _grid(low: int, high: int, height: float) -> Iterator[str]:
    for power in range(low, high + 1):
        x = _place(10.0**power, low, high)
        yield f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - _BOTTOM:g}" stroke="{_FAINT}"/>'
        yield _text(x, _TOP - 12, f"{10.0**power:g} s", anchor="middle")


def _bar(name: str, way: dict[str, Any], top: float, low: int, high: int) -> Iterator[str]:
    yield _text(_LEFT - 8, top + 11, name, anchor="end")
    seconds = way["median_seconds"]
    if not seconds:
        yield _text(_LEFT + 4, top + 11, (way["problem"] or way["about"])[:100])
        return
    end = _place(seconds, low, high)
    colour = _OURS if name == "upgradeconverter" else _OTHERS
    yield f'<rect x="{_LEFT}" y="{top:g}" width="{max(1.0, end - _LEFT):.1f}" height="{_ROW - 4}" fill="{colour}"/>'
    behind = "" if way["ratio"] is None else f" ({way['ratio']:.2f})"
    yield _text(end + 6, top + 11, f"{seconds:.3g} s{behind}")


def _scaled(scale: float) -> str:
    return f" (at scale {scale:g})" if scale != 1 else ""


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-family="sans-serif" font-size="12" font-weight="{weight}" text-anchor="{anchor}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
