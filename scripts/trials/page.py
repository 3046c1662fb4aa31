"""The tables of the documents, from a result file alone."""

import json
import re
from pathlib import Path

from . import cases
from .run import QUANTILES
from .statistics import Ratio, median, ratio

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"

#: Of a sample, in the order of the columns.
_FIGURES = ("cost", *QUANTILES)

_SECTION = re.compile(
    r"<!-- scripts/try-switches (?P<file>\S+) (?P<case>\w+) -->\n"
    r".*?"
    r"<!-- end of (?P=case) -->",
    re.DOTALL,
)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def write(result: dict, path: Path) -> None:
    """A line for each sample, so that a change can be read."""
    head = json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1)
    samples = ",\n  ".join(json.dumps(sample, ensure_ascii=False) for sample in result["samples"])
    text = head.removesuffix("\n}")
    path.write_text(f'{text},\n "samples": [\n  {samples}\n ]\n}}\n')


def table(result: dict, key: str) -> str:
    """Every variant of a case under every load, beside the first variant."""
    case = cases.ALL[key]
    heads = ["load", "variant", "CPU", "×", "p50 µs", "×", "p99 µs", "×", "p99.9 µs", "×"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for work in map(cases.WORKS.get, case.works):
        taken = _rounds(result, key, work.key)
        default = taken.get(case.variants[0].name)
        if not default:
            continue
        for variant in case.variants:
            values = taken.get(variant.name)
            if values:
                first = variant is case.variants[0]
                lines.append(_row(work, variant.name, values, None if first else default))
    return "\n".join(lines)


def _rounds(result: dict, case: str, work: str) -> dict[str, dict[str, list]]:
    """By variant and figure, the values in order of rounds."""
    found: dict[str, dict[str, list]] = {}
    for sample in result["samples"]:
        if (sample["case"], sample["work"]) == (case, work):
            figures = found.setdefault(sample["variant"], {})
            for name in _FIGURES:
                figures.setdefault(name, []).append(sample.get(name))
    return found


def _row(work: cases.Work, name: str, values: dict, default: dict | None) -> str:
    cells = [work.title if default is None else "", f"`{name}`" if "=" in name else name]
    for figure in _FIGURES:
        middle = median(values[figure])
        unit = f" {work.unit}" if figure == "cost" else ""
        digits = 1 if figure == "cost" and middle and middle < 1000 else 0
        cells.append("" if middle is None else f"{middle:,.{digits}f}{unit}")
        compared = ratio(values[figure], default[figure]) if default else None
        cells.append(_text(compared, bounds=figure == "cost"))
    return "| " + " | ".join(cells) + " |"


def _text(compared: Ratio | None, bounds: bool) -> str:
    if compared is None:
        return ""
    text = f"{compared.median:.2f}"
    if bounds:
        text += f" ({compared.low:.2f}–{compared.high:.2f})"
    return text if compared.is_noise else f"**{text}**"


def shown(text: str) -> str:
    """A document with the tables that its marks ask for."""

    def section(match: re.Match) -> str:
        result = read(BENCHMARKS / match["file"])
        mark = f"<!-- scripts/try-switches {match['file']} {match['case']} -->"
        return f"{mark}\n{table(result, match['case'])}\n<!-- end of {match['case']} -->"

    return _SECTION.sub(section, text)


def documents() -> list[Path]:
    return [path for path in sorted(BENCHMARKS.glob("*.md")) if _SECTION.search(path.read_text())]
