"""Documents that show figures: writes a result's tables into them, and checks them.

A document says by a comment what is shown from which result file:

    <!-- scripts/compare FILE SECTION -->
    …what `tables` or `plots` make of it…
    <!-- end of SECTION -->

A plot says it in its first line; a document that shows nothing yet says `none`. So every
figure can be made again from the file that is committed, and `check` does that for all of
them. A run of one measurement (`--only`) shows itself in the sections and plots that bear
its name, and leaves the others as they are.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from . import plots, tables
from .result import Result

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"
RESULTS = "results"

#: In the place of a result file: nothing is shown yet.
NONE = "none"

_SECTION = re.compile(
    r"<!-- scripts/compare (?P<file>\S+) (?P<section>\w+) -->\n"
    r"(?P<text>.*?)"
    r"<!-- end of (?P=section) -->",
    re.DOTALL,
)
_PLOT = re.compile(r"<!-- scripts/compare (?P<file>\S+) (?P<plot>\w+) -->")


def publish(result: Result) -> list[Path]:
    """Makes every document of the project show this result; returns what was written."""
    file = BENCHMARKS / RESULTS / result.file_name
    return [file, *_write(result, file, BENCHMARKS, _documents(), _shows_itself)]


def write_report(result: Result, directory: Path) -> list[Path]:
    """Writes result, page and plots into a directory of their own."""
    file = directory / RESULTS / result.file_name
    page = directory / "README.md"
    page.write_text((BENCHMARKS / "README.md").read_text())
    return [file, *_write(result, file, directory, [page], lambda *_: True)]


def _write(
    result: Result,
    file: Path,
    directory: Path,
    documents: list[Path],
    shows: Callable[[Result, str], bool],
) -> list[Path]:
    result.write(file)
    result.name = file.name
    written = []
    for name, plot in plots.PLOTS.items():
        if not shows(result, name):
            continue
        path = directory / f"{name}.svg"
        path.write_text(_plot(result, name, plot))
        written.append(path)
    for document in documents:
        text = document.read_text()

        def made(match: re.Match, document: Path = document) -> str:
            if not shows(result, match["section"]):
                return match[0]
            return _section(result, match["section"], document, directory)

        shown = _SECTION.sub(made, text)
        if shown != text:
            document.write_text(shown)
            written.append(document)
    return written


def _shows_itself(result: Result, name: str) -> bool:
    """Whether this section or plot is made from the result: it may be of one measurement."""
    only = {sample["measurement"] for sample in result.data["samples"]}
    return len(only) != 1 or name.split("_")[0] in only


def check() -> list[str]:
    """What documents and plots show that is not what their result files say."""
    findings = []
    shown = False
    for document in _documents():
        for match in _SECTION.finditer(document.read_text()):
            if match["file"] == NONE and not match["text"]:
                continue
            shown = True
            what = f"{document.relative_to(ROOT)}: {match['section']}"
            result = _read(match["file"], what, findings)
            if result and _section(result, match["section"], document, BENCHMARKS) != match[0]:
                findings.append(f"{what}: is not what {match['file']} says")
    for name, plot in plots.PLOTS.items():
        path = BENCHMARKS / f"{name}.svg"
        what = str(path.relative_to(ROOT))
        text = path.read_text() if path.exists() else ""
        match = _PLOT.search(text)
        if not match and not shown:
            continue
        if not match:
            findings.append(f"{what}: is missing, or does not say which result it shows")
            continue
        result = _read(match["file"], what, findings)
        if result and _plot(result, name, plot) != text:
            findings.append(f"{what}: is not what {match['file']} says")
    return findings


def _read(name: str, what: str, findings: list[str]) -> Result | None:
    try:
        result = Result.read(BENCHMARKS / RESULTS / name)
    except (OSError, ValueError) as error:
        findings.append(f"{what}: {error}")
        return None
    if result.data["modified"]:
        findings.append(f"{what}: {name} was measured with sources that are not in its commit")
    return result


def _section(result: Result, section: str, document: Path, directory: Path) -> str:
    """The section with its marks, links relative to the document."""
    results = os.path.relpath(directory / RESULTS, document.parent)
    text = tables.SECTIONS[section](result).replace("{results}", results)
    mark = f"<!-- scripts/compare {result.name} {section} -->"
    return f"{mark}\n{text}\n<!-- end of {section} -->"


def _plot(result: Result, name: str, plot) -> str:
    return f"<!-- scripts/compare {result.name} {name} -->\n{plot(result)}"


def _documents() -> list[Path]:
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
