"""Say what of the library the tests ran, after `coverage run`, and fail below the bars. `--missing` lists the rest.

Lines and branches are counted apart: coverage's own total mixes them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import coverage

# Percent, of what is run without browsers.
BARS = {"lines": 97.0, "branches": 93.0}


def main() -> int:
    """Print the figures; returns the status to exit with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", action="store_true", help="list lines and branches that did not run")
    arguments = parser.parse_args()
    measured = coverage.Coverage()
    measured.combine(strict=False, keep=False)
    measured.load()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "report.json")
        measured.json_report(outfile=str(path))
        report = json.loads(path.read_text())
    for name, file in report["files"].items():
        summary = file["summary"]
        if arguments.missing and (file["missing_lines"] or file["missing_branches"]):
            print(f"{name}: {summary['percent_covered']:.1f} %")
            print("  lines", ", ".join(map(str, file["missing_lines"])) or "all ran")
            branches = [f"{line} to {'the end' if to < 0 else to}" for line, to in file["missing_branches"]]
            print("  branches", ", ".join(branches) or "all ran")
    totals = report["totals"]
    shares = {
        "lines": 100 * totals["covered_lines"] / totals["num_statements"],
        "branches": 100 * totals["covered_branches"] / totals["num_branches"],
    }
    figures = ", ".join(f"{name} {share:.1f} %" for name, share in shares.items())
    print(f"coverage of python/wtio without browsers: {figures}")
    missed = [f"{name} at least {bar:g} %" for name, bar in BARS.items() if shares[name] < bar]
    if missed:
        print(f"FAILED, {' and '.join(missed)}; look: {sys.argv[0]} --missing", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
