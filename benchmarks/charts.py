"""The results as pictures: SVG written by hand, which every browser and repository page shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Told apart also without colours: the bars of a group are always in the order of the legend.
COLOURS = ("#0b6e99", "#5ab4d6", "#4a4a4a", "#e08a1e", "#b5483a", "#7a5aa6", "#3d8b57", "#c9a227", "#b9b9b9")
BAR = 13
GAP = 14


def _document(width: float, height: float, title: str, body: Sequence[str]) -> str:
    style = (
        "text{font:12px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}"
        ".small{font-size:10.5px;fill:#555}.grid{stroke:#ddd}.one{stroke:#222}"
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-label="{escape(title)}">',
            f"<style>{style}</style>",
            f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
            *body,
            "</svg>\n",
        )
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attribute}>{escape(text)}</text>'


def bars(title: str, note: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars on a log axis that begin at 1.

    Args:
        title: Above everything.
        note: What a bar's length means.
        groups: Name of a group to its bars: name and ratio, which is positive.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    values = [value for group in groups.values() for value in group.values()]
    low = math.floor(math.log10(min([1.0, *values])))
    high = math.ceil(math.log10(max([10.0, *values])))
    left, right, top = 350.0, 60.0, 84.0
    width = 1000.0
    scale = (width - left - right) / (high - low)

    def place(value: float) -> float:
        return left + (math.log10(value) - low) * scale

    height = top + sum(len(group) * BAR + GAP for group in groups.values()) + 30
    body = [_text(16, 26, title, kind="title"), _text(16, 46, note, kind="small")]
    for index, name in enumerate(names):
        x = 16.0 + index * 150
        body.append(f'<rect x="{x}" y="56" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        body.append(_text(x + 18, 66, name))
    for power in range(low, high + 1):
        x = place(10.0**power)
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{height - 26:.1f}"/>')
        body.append(_text(x, height - 10, f"{10.0**power:g}x", "middle", "small"))
    y = top
    for group, members in groups.items():
        body.append(_text(left - 12, y + len(members) * BAR / 2 + 4, group, "end"))
        for name, value in members.items():
            begin, end = sorted((place(1.0), place(value)))
            colour = COLOURS[names.index(name) % len(COLOURS)]
            body.append(
                f'<rect x="{begin:.1f}" y="{y:.1f}" width="{max(end - begin, 1):.1f}" height="{BAR - 2}" '
                f'fill="{colour}"><title>{escape(f"{group}: {name} {value:.2f}")}</title></rect>'
            )
            shown = f"{value:.0f}x" if value >= 20 else f"{value:.1f}x" if value >= 1 else f"{value:.2g}x"
            body.append(_text(end + 4, y + BAR - 3.5, shown, kind="small"))
            y += BAR
        y += GAP
    body.append(f'<line class="one" x1="{place(1):.1f}" x2="{place(1):.1f}" y1="{top - 6}" y2="{height - 26:.1f}"/>')
    return _document(width, height, title, body)


@dataclass(frozen=True)
class Bar:
    """One bar: its name, and its parts in the order in which they lie."""

    name: str
    parts: Mapping[str, float]


def stacked(title: str, note: str, panels: Mapping[str, Sequence[Bar]]) -> str:
    """Stacked bars; the longest of each panel takes the whole width."""
    names = list(dict.fromkeys(name for group in panels.values() for bar in group for name in bar.parts))
    per_row, left, right, width = 5, 120.0, 90.0, 1000.0
    top = 60.0 + 20 * math.ceil(len(names) / per_row)
    height = top + sum(26 + len(group) * (BAR + 5) + GAP for group in panels.values())
    body = [_text(16, 26, title, kind="title"), _text(16, 46, note, kind="small")]
    for index, name in enumerate(names):
        x, y = 16.0 + index % per_row * 190, 56.0 + index // per_row * 20
        body.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>')
        body.append(_text(x + 18, y + 10, name))
    y = top
    for panel, group in panels.items():
        body.append(_text(16, y + 16, panel))
        y += 26
        longest = max(sum(bar.parts.values()) for bar in group)
        for bar in group:
            body.append(_text(left - 10, y + BAR - 2, bar.name, "end", "small"))
            x, total = left, sum(bar.parts.values())
            for index, name in enumerate(names):
                length = (width - left - right) * bar.parts.get(name, 0.0) / longest
                body.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{BAR}" '
                    f'fill="{COLOURS[index % len(COLOURS)]}">'
                    f"<title>{escape(f'{bar.name}: {name} {bar.parts.get(name, 0.0):.1f}')}</title></rect>"
                )
                x += length
            body.append(_text(x + 6, y + BAR - 2, f"{total:.0f}" if total >= 100 else f"{total:.1f}", kind="small"))
            y += BAR + 5
        y += GAP
    return _document(width, height, title, body)


@dataclass(frozen=True)
class Plot:
    """One line: what it shows, and its points."""

    title: str
    x_title: str
    y_title: str
    points: Mapping[float, float]


def _span(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _magnitude(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def lines(title: str, note: str, plots: Sequence[Plot]) -> str:
    """Plots side by side, both axes logarithmic."""
    panel, height, top, bottom = 340.0, 330.0, 90.0, 280.0
    width = panel * len(plots)
    body = [_text(16, 26, title, kind="title"), _text(16, 46, note, kind="small")]
    for index, plot in enumerate(plots):
        left, right = index * panel + 56, (index + 1) * panel - 20
        x_low, x_high = _span(list(plot.points))
        y_low, y_high = _span(list(plot.points.values()))

        def place(
            x: float,
            y: float,
            start: tuple[float, float] = (left, x_low),
            span: float = (right - left) / (x_high - x_low),
            base: int = y_low,
            rise: float = (bottom - top) / (y_high - y_low),
        ) -> tuple[float, float]:
            return start[0] + (math.log10(x) - start[1]) * span, bottom - (math.log10(y) - base) * rise

        body.append(_text(left, top - 16, f"{plot.title} ({plot.y_title})"))
        for power in range(x_low, x_high + 1):
            x, _ = place(10.0**power, 10.0**y_low)
            body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            body.append(_text(x, bottom + 16, _magnitude(10.0**power), "middle", "small"))
        for power in range(y_low, y_high + 1):
            _, y = place(10.0**x_low, 10.0**power)
            body.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            body.append(_text(left - 6, y + 4, _magnitude(10.0**power), "end", "small"))
        placed = [place(x, y) for x, y in sorted(plot.points.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        body.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[0]}"/>' for x, y in placed]
        body.append(_text((left + right) / 2, bottom + 34, plot.x_title, "middle", "small"))
    return _document(width, height, title, body)
