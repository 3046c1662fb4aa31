"""The command line: counts, compares, accepts."""

import argparse
import json
import shutil
import subprocess
import sys
import unittest
from dataclasses import asdict
from pathlib import Path

from comparison import build
from comparison.processes import Failed

from . import callgrind, verdict
from .callgrind import Count

_DESCRIPTION = """\
Counts the instructions of fixed pieces of work (benches/instructions) under callgrind, which
no noise of the machine moves, and compares them with benches/instructions/baseline.json.

  scripts/instructions            fails if a work takes over 3 % more than the baseline says,
                                  or if ten routes and Maglev cost a connection as much
  scripts/instructions --accept   makes what is counted now the baseline
  scripts/instructions selftest   tests the arithmetic

"Without cryptography" is without the C and assembly of AWS-LC, whose share would hide what
becomes dearer in forebay and rustls. Needs valgrind. It takes a minute and the build.
"""

_BASELINE = build.ROOT / "benches" / "instructions" / "baseline.json"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/instructions",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", nargs="?", choices=["count", "selftest"], default="count")
    parser.add_argument("--accept", action="store_true", help="renew the baseline")
    options = parser.parse_args(arguments)
    if options.verb == "selftest":
        return _selftest()
    try:
        return _count(accept=options.accept)
    except Failed as error:
        print(f"scripts/instructions: {error}", file=sys.stderr)
        return 1


def _count(*, accept: bool) -> int:
    if shutil.which("valgrind") is None:
        raise Failed("valgrind is missing: install the package of that name")
    program = build.bench("instructions")
    names = subprocess.run([program, "list"], stdout=subprocess.PIPE, text=True, check=True)
    now = {work: callgrind.count(program, work) for work in names.stdout.split()}
    tools = {"rustc": _rustc(), "valgrind": callgrind.version()}
    dearer = verdict.dearer(now)
    for sentence in dearer:
        print(f"{sentence}: too many")
    if accept:
        counts = {work: asdict(count) for work, count in now.items()}
        text = json.dumps({"tools": tools, "instructions": counts}, indent=2)
        _BASELINE.write_text(text + "\n")
        print(verdict.table(verdict.compare(now, now)))
        return 1 if dearer else 0
    baseline = json.loads(_BASELINE.read_text())
    before = {work: Count(**count) for work, count in baseline["instructions"].items()}
    lines = verdict.compare(now, before)
    print(verdict.table(lines))
    for tool, version in tools.items():
        if version != baseline["tools"][tool]:
            print(f"the baseline is of {baseline['tools'][tool]}, this is {version}")
    gone = before.keys() - now.keys()
    for work in sorted(gone):
        print(f"{work}: in the baseline, but there is no such work")
    if gone or any(line.fails() for line in lines):
        print("If that is justified: scripts/instructions --accept, and say why in the commit")
        return 1
    return 1 if dearer else 0


def _rustc() -> str:
    done = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _selftest() -> int:
    tests = unittest.defaultTestLoader.discover(
        str(Path(__file__).parent / "tests"), top_level_dir=str(Path(__file__).parents[1])
    )
    result = unittest.TextTestRunner(verbosity=1).run(tests)
    return 0 if result.wasSuccessful() else 1
