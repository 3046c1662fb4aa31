"""What a handful of ratios says: the median, and how sure it is."""

import math
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    median: float
    #: Bounds that hold the true median in 95 of 100 runs, by order statistics.
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        return self.low <= 1.0 <= self.high


def ratio(values: list[float], defaults: list[float]) -> Ratio | None:
    """Of each round's value to the default's in the same round."""
    ratios = sorted(
        value / default
        for value, default in zip(values, defaults, strict=True)
        if value is not None and default
    )
    if not ratios:
        return None
    reach = 0.98 * math.sqrt(len(ratios))  # 1.96 standard deviations of a fair coin's tosses
    middle = (len(ratios) - 1) / 2
    low = ratios[max(0, math.floor(middle - reach))]
    high = ratios[min(len(ratios) - 1, math.ceil(middle + reach))]
    return Ratio(statistics.median(ratios), low, high)


def median(values: list[float]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
