"""Whether counts are what the baseline says."""

from dataclasses import dataclass

from .callgrind import Count

#: So much more than the baseline is too much, and so much less is worth a new baseline.
TOLERANCE = 0.03


#: Works that may take no more than TOLERANCE beyond another one, both counted now, with
#: cryptography: what operators switch on is not to cost them connections.
BESIDE = {"connection-full-ten-routes-maglev": "connection-full"}


@dataclass(frozen=True)
class Line:
    """One work, now and in the baseline."""

    work: str
    now: Count
    before: Count | None

    def ratios(self) -> tuple[float, float]:
        """All instructions and our own, over those of the baseline."""
        assert self.before is not None
        return (self.now.total / self.before.total, self.now.own / self.before.own)

    def words(self) -> str:
        """What is to be said of it; empty if all is well."""
        if self.before is None:
            return "not in the baseline"
        ratios = self.ratios()
        if max(ratios) > 1 + TOLERANCE:
            return "too many"
        if min(ratios) < 1 - TOLERANCE:
            return "fewer: renew the baseline"
        return ""

    def fails(self) -> bool:
        """Whether it must not pass."""
        return self.before is None or max(self.ratios()) > 1 + TOLERANCE


def compare(now: dict[str, Count], before: dict[str, Count]) -> list[Line]:
    """A line for each work that there is now."""
    return [Line(work, count, before.get(work)) for work, count in now.items()]


def dearer(now: dict[str, Count]) -> list[str]:
    """A sentence for each work that takes too much more than the one beside it."""
    sentences = []
    for work, other in BESIDE.items():
        ratio = now[work].total / now[other].total
        sentences += [f"{work}: {ratio:.3f} of {other}"] if ratio > 1 + TOLERANCE else []
    return sentences


def table(lines: list[Line]) -> str:
    """What people read."""
    rows = [("work", "all", "ratio", "without cryptography", "ratio", "")]
    for line in lines:
        total, own = (f"{ratio:.3f}" for ratio in line.ratios()) if line.before else ("–", "–")
        words = line.words()
        rows.append((line.work, f"{line.now.total:,}", total, f"{line.now.own:,}", own, words))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True)]
        text.append("  ".join([*cells, row[5]]).rstrip())
    return "\n".join(text)
