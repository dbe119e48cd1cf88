"""The first page of the documentation gives the figures that were measured."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
RESULTS = (TOP / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_the_figures_of_the_first_page_are_those_of_the_benchmarks() -> None:
    page = " ".join((TOP / "docs" / "index.md").read_text(encoding="utf-8").split())
    warm = RESULTS[RESULTS.index("\nWarm (") : RESULTS.index("\nCold (")]
    table = [[cell.strip() for cell in line.split("|")] for line in warm.splitlines()]
    rows = {cells[1]: cells for cells in table if len(cells) > 3}

    def measured(workload: str) -> str:
        return re.sub(r" \(.*", "", rows[workload][3])

    ratio = rows["workload"].index("times pywebtransport")
    shown = {
        "64-byte datagrams one way, received": "{} datagrams or",
        "64-byte requests, 100 in flight": "or {} requests a second",
        "one stream up": "{} MB/s on one stream",
        "64-byte echo on an open stream, p50": "an echo in {} µs",
    }
    for workload, words in shown.items():
        assert words.format(measured(workload)) in page
    ratios = [float(rows[workload][ratio]) for workload in shown]
    assert f"{min(ratios):g} to {max(ratios):g} times better than pywebtransport" in page
