"""What forebay has set itself to reach, and what a result says of it."""

from dataclasses import dataclass

from .figures import ALL, Figure
from .result import Result

FOREBAY = "forebay"
HAPROXY = "haproxy"
PLAIN = "plain"
FLOOR = "floor"


@dataclass(frozen=True)
class Goal:
    """A bound on one of forebay's figures: times a peer's figure, or as it is."""

    figure: Figure
    bound: float
    #: A peer and its figure. `None`: the bound is in the figure's own unit.
    reference: tuple[str, str] | None = None

    def text(self, result: Result) -> str:
        comparison = "≥" if self.figure.more_is_better else "≤"
        bound = f"{self.bound:g}"
        if self.reference is None:
            unit = "" if self.figure.unit == "×" else f" {self.figure.unit}"
            return f"{comparison} {bound}{unit}"
        peer, figure = self.reference
        name = result.title(peer) if peer in result.servers else peer
        other = "" if figure == self.figure.key else f", {ALL[figure].title}"
        return f"{comparison} {bound} × {name}{other}"

    def reached(self, result: Result) -> float | None:
        """What compares with the bound: the ratio of two medians of one run, or the median."""
        own = result.median(FOREBAY, self.figure.key)
        if own is None or self.reference is None:
            return own
        other = result.median(*self.reference)
        return own / other if other else None

    def holds(self, result: Result) -> bool | None:
        reached = self.reached(result)
        if reached is None:
            return None
        return reached >= self.bound if self.figure.more_is_better else reached <= self.bound


def _beside_haproxy(figure: str, bound: float, other: str | None = None) -> Goal:
    return Goal(ALL[figure], bound, (HAPROXY, other or figure))


GOALS = (
    _beside_haproxy("full_ecdsa", 0.35),
    _beside_haproxy("full_ecdsa_hybrid", 0.45, "full_ecdsa"),
    _beside_haproxy("full_rsa", 0.75),
    _beside_haproxy("resumed", 0.35),
    Goal(ALL["bulk_down"], 1.0, (PLAIN, "bulk_down")),
    Goal(ALL["bulk_up"], 1.0, (PLAIN, "bulk_up")),
    _beside_haproxy("request", 0.65),
    Goal(ALL["idle_memory"], 2.0),
    Goal(ALL["request_beside_idle_ratio"], 1.05),
    Goal(ALL["workers_ratio"], 1.9),
    Goal(ALL["storm_p99_ratio"], 3.0),
    Goal(ALL["storm_p99_busy_ratio"], 3.0),
    Goal(ALL["storm_goodput_ratio"], 0.9),
)
