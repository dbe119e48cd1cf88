"""Sizes, rates and times for people, and percentiles of many times in little memory."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

__all__ = ["Times", "amount", "milliseconds", "per_second"]

_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
# Neighbouring buckets differ by a hundredth, so a percentile is right within one per cent.
_STEP: Final = math.log(1.01)
_LEAST: Final = 1e-6  # seconds; what is shorter counts as this


def amount(size: float) -> str:
    """A number of bytes, such as `12.3 MB`."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"


def per_second(size: float) -> str:
    """Bytes per second, such as `12.3 MB/s`."""
    return f"{amount(size)}/s"


def milliseconds(seconds: float) -> str:
    """A time, such as `1.23 ms`."""
    value = seconds * 1000
    return f"{value:.3f} ms" if value < 1 else f"{value:.2f} ms" if value < 100 else f"{value:.0f} ms"


class Times:
    """Times in buckets of one per cent: any number of them takes at most about two thousand buckets."""

    def __init__(self) -> None:
        # How many times fell into each bucket.
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.least = math.inf
        self.most = 0.0
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self._buckets[round(math.log(max(seconds, _LEAST)) / _STEP)] += 1
        self.count += 1
        self._sum += seconds
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)

    def percentile(self, share: float) -> float:
        """The time within which this share (0 … 1) of all lies, to one per cent; NaN if there is none."""
        if not self.count:
            return math.nan
        wanted = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                break
        return min(max(math.exp(bucket * _STEP), self.least), self.most)

    def words(self) -> str:
        """Median and tail, for people."""
        if not self.count:
            return "none"
        parts = [f"{name} {milliseconds(self.percentile(share))}" for name, share in _SHARES]
        return "  ".join([*parts, f"max {milliseconds(self.most)}"])

    def facts(self) -> dict[str, float | int | None]:
        """The same for programs; seconds."""
        if not self.count:
            return {"count": 0}
        facts: dict[str, float | int | None] = {"count": self.count, "min": self.least, "mean": self._sum / self.count}
        facts |= {name: self.percentile(share) for name, share in _SHARES}
        return facts | {"max": self.most}


_SHARES: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
