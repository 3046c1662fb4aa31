"""The command line: what to compare, how long, and where the result goes."""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from comparison import machine
from comparison.processes import Failed
from comparison.scene import Certificates, Scene, free_port

from . import cases, page
from .run import Settings, take

_DESCRIPTION = """\
Measures what a switch of forebay does: CPU time of the server for each operation, and the
latency of requests, with one setting against another in finely interleaved slices.

  scripts/try-switches               every switch, into docs/benchmarks/switches.json
  scripts/try-switches tried         every change that was tried: builds the commit that
                                     docs/benchmarks/tried.patch is for, with the patch
  scripts/try-switches --only spin   some cases; others keep what the file has
  scripts/try-switches render        makes the documents show the files again
  scripts/try-switches check         do the documents show what the files say?
  scripts/try-switches selftest      tests the arithmetic

Needs two CPUs (0: engine, 1: load and backend), nginx and openssl; the case `napi` needs
root, iproute2 and ethtool. It takes some ten minutes.
"""

_PATCH = page.BENCHMARKS / "tried.patch"
_BASE = "# base: "


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/try-switches",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    verbs = ["switches", "tried", "render", "check", "selftest"]
    add("verb", nargs="?", choices=verbs, default="switches", metavar="VERB")
    add("--only", action="append", default=[], metavar="CASE", help=", ".join(cases.ALL))
    add("--rounds", type=int, default=25, metavar="N", help="default 25")
    add("--seconds", type=float, default=0.4, metavar="S", help="of a slice, default 0.4")
    add("--realtime", action="store_true", help="keep the machine's other programs off its CPUs")
    add("--binaries", type=Path, metavar="DIR", help="forebay and forebay-load; default: build")
    options = parser.parse_args(arguments)
    try:
        match options.verb:
            case "render":
                return _render()
            case "check":
                return _check()
            case "selftest":
                return _selftest()
            case verb:
                return _measure(options, verb == "tried")
    except Failed as error:
        print(f"scripts/try-switches: {error}", file=sys.stderr)
        return 1


def _render() -> int:
    for document in page.documents():
        document.write_text(page.shown(document.read_text()))
    return 0


def _check() -> int:
    stale = [path for path in page.documents() if page.shown(path.read_text()) != path.read_text()]
    for path in stale:
        print(f"{path.relative_to(page.ROOT)}: is not what its result says", file=sys.stderr)
    return 1 if stale else 0


def _selftest() -> int:
    tests = unittest.defaultTestLoader.discover(
        str(Path(__file__).with_name("tests")), top_level_dir=str(Path(__file__).parents[1])
    )
    return 0 if unittest.TextTestRunner().run(tests).wasSuccessful() else 1


def _measure(options: argparse.Namespace, tried: bool) -> int:
    chosen = [case for case in (cases.TRIED if tried else cases.SWITCHES) if _wanted(case, options)]
    if unknown := set(options.only) - set(cases.ALL):
        raise Failed(f"no such case: {', '.join(sorted(unknown))}")
    if len(os.sched_getaffinity(0)) < 2:
        raise Failed("needs two CPUs, one for the engine and one for its load")
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    file = page.BENCHMARKS / ("tried.json" if tried else "switches.json")
    before = page.read(file) if file.exists() else {"cases": {}, "samples": []}
    settings = Settings(options.rounds, options.seconds, options.realtime)
    with tempfile.TemporaryDirectory(prefix="forebay-try-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the backend has another user
        binaries = options.binaries or _built(directory, tried)
        certificates = Certificates(directory)
        certificates.make_missing()
        scene = Scene(
            directory, certificates, binaries / "forebay", binaries / "forebay-load",
            free_port(), 0, [1], 0,
        )  # fmt: skip
        runs, samples = before["cases"], before["samples"]
        for case in chosen:
            if reason := _impossible(case):
                print(f"{case.key}: left out: {reason}", file=sys.stderr)
                continue
            runs[case.key] = _run_facts(options)
            samples = [sample for sample in samples if sample["case"] != case.key]
            samples += take(case, scene, settings)
    page.write({"machine": machine.facts(), "cases": runs, "samples": samples}, file)
    return _render()


def _wanted(case: cases.Case, options: argparse.Namespace) -> bool:
    return not options.only or case.key in options.only


def _impossible(case: cases.Case) -> str | None:
    if case.network and os.geteuid() != 0:
        return "only root makes network namespaces"
    missing = [name for name in ("ip", "ethtool") if case.network and not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else None


def _built(directory: Path, tried: bool) -> Path:
    """Builds the sources as they are, or the patch's commit with the patch."""
    source = page.ROOT
    if tried:
        base = _PATCH.read_text().split("\n", 1)[0].removeprefix(_BASE).strip()
        source = directory / "source"
        _run(["git", "-C", page.ROOT, "worktree", "add", "--detach", source, base])
        _run(["git", "-C", source, "apply", _PATCH])
    target = Path(os.environ.get("CARGO_TARGET_DIR", page.ROOT / "target"))
    command = ["cargo", "build", "--release", "--locked", "--bin", "forebay", "--bin", "forebay-load"]
    try:
        _run([*command, "--target-dir", target], cwd=source)
        binaries = directory / "binaries"
        binaries.mkdir()
        for name in ("forebay", "forebay-load"):
            shutil.copy(target / "release" / name, binaries / name)
    finally:
        if tried:
            _run(["git", "-C", page.ROOT, "worktree", "remove", "--force", source])
    return binaries


def _run(command: list, cwd: Path | None = None) -> None:
    # A build is nobody's measurement: at ordinary priority.
    done = subprocess.run([str(part) for part in command], cwd=cwd, preexec_fn=_ordinary)
    if done.returncode != 0:
        raise Failed(f"{command[0]} failed")


def _ordinary() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _run_facts(options: argparse.Namespace) -> dict:
    head = ["git", "-C", str(page.ROOT), "rev-parse", "HEAD"]
    return {
        "commit": subprocess.run(head, capture_output=True, text=True).stdout.strip(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "realtime": options.realtime,
        "load": machine.load_average(),
    }
