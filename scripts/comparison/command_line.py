"""The command line: what to do, how long, with whom, and where the result goes."""

import argparse
import os
import shlex
import signal
import sys
import tempfile
import unittest
from pathlib import Path

from . import build, documents, measurements, packages, servers
from .measurements import Settings
from .processes import Failed, Processes, descriptor_limit
from .result import Result
from .run import Plan, run
from .scene import Certificates, Scene, free_port

_DESCRIPTION = """\
Measures forebay beside HAProxy, nginx stream, hitch, stunnel and HAProxy plain TCP (the
floor): CPU time of the server for each operation, memory of an idle connection, latency in
a storm of handshakes and on a machine of one's own. Every server has one data core, the
same certificates, the same backend and the same load, and is started anew for each
measurement; servers take turns, round after round.

  scripts/compare                    everything; the project's documents then show it
  scripts/compare --quick            once and briefly, into target/compare: does it work?
  scripts/compare --output DIR       everything, into a directory of its own
  scripts/compare render FILE        makes the documents show this result again; one of
                                     --only storm in the sections on storms only
  scripts/compare check              do documents and plots show what their results say?
  scripts/compare certificates DIR   makes the certificates, for a server of one's own
  scripts/compare selftest           tests the arithmetic and the rendering
"""

_EPILOG = """\
A server of your own: make the certificates, configure the server with them and with
127.0.0.1:PORT as its backend, start it on the server's CPU, then

  scripts/compare --certificates DIR --backend-port PORT --server mine=8443/8444:1234

where 8443 serves the ECDSA certificate, 8444 (if given) the RSA one, and 1234 is its
process; its children count too. It is measured as it runs, also where the others are
started otherwise.
"""

#: How long a sample takes, and what is held idle, in a run and in a quick one.
_SECONDS, _WARM_UP, _ROUNDS, _IDLE = 4.0, 1.0, 3, 10_000
_QUICK_SECONDS, _QUICK_WARM_UP, _QUICK_ROUNDS, _QUICK_IDLE = 0.6, 0.2, 1, 500

#: Of the descriptor limit, what may be spent on idle connections: two each at the server
#: (and stunnel keeps its connections below 125/256 of its limit).
_IDLE_SHARE = 0.47


#: Needed whoever is measured (nginx: the backend). Their Debian packages have the same names.
_PROGRAMS = ("nginx", "openssl")


#: Of `benches/`, by the name that the scene has them under.
_BENCHES = ("scaling", "floor")


class _Exit(Exception):
    """Ends the program with a code, after a message."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


def main(arguments: list[str]) -> int:
    # Also when it is asked to end, everything that was started is ended first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _main(_parser().parse_args(arguments), arguments)
    except (_Exit, Failed) as error:
        print(f"scripts/compare: {error}", file=sys.stderr)
        return error.code if isinstance(error, _Exit) else 1
    except KeyboardInterrupt:
        print("scripts/compare: interrupted; everything it started is ended", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/compare",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    verbs = ["measure", "render", "check", "certificates", "selftest"]
    add("verb", nargs="?", choices=verbs, default="measure", metavar="VERB", help=", ".join(verbs))
    add("path", nargs="?", type=Path, help="of render: a result; of certificates: a directory")
    add("--quick", action="store_true", help="once and briefly; fails if anything does not work")
    add("--rounds", type=int, metavar="N", help=f"default {_ROUNDS}")
    add("--seconds", type=float, metavar="S", help=f"for each sample, default {_SECONDS:g}")
    add("--only", action="append", default=[], metavar="ROW", help=_known(measurements.ALL))
    add("--servers", default="", metavar="A,B", help=_known(servers.known()))
    add("--server", action="append", default=[], metavar="NAME=PORT:PID", help="see below")
    add("--idle", type=int, metavar="N", help=f"idle connections, default {_IDLE}")
    add("--output", type=Path, metavar="DIR", help="default: the project's documents")
    add("--binaries", type=Path, metavar="DIR", help="forebay and forebay-load; default: build")
    add("--certificates", type=Path, metavar="DIR", help="default: made for the run")
    add("--backend-port", type=int, metavar="PORT", help="default: a free one")
    add("--server-cpu", type=int, default=0, metavar="N", help="default 0")
    add("--load-cpus", default="1", metavar="N,M", help="of load and backend; default 1")
    return parser


def _known(names) -> str:
    return "one of " + ", ".join(names)


def _main(options: argparse.Namespace, arguments: list[str]) -> int:
    match options.verb:
        case "measure":
            return _measure(options, shlex.join(["scripts/compare", *arguments]))
        case "render":
            return _render(options)
        case "check":
            return _check()
        case "certificates":
            if options.path is None:
                raise _Exit("certificates: give a directory")
            Certificates(options.path).make_missing()
            return 0
        case _:
            return _selftest()


def _measure(options: argparse.Namespace, command: str) -> int:
    chosen, absent = _servers(options)
    binaries = options.binaries or build.programs()
    benches = {} if options.binaries else {name: build.bench(name) for name in _BENCHES}
    load_cpus = _cpus(options)
    with tempfile.TemporaryDirectory(prefix="forebay-compare-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # servers read it as users of their own
        certificates = Certificates(options.certificates or directory)
        certificates.make_missing()
        settings = _settings(options)
        scene = Scene(
            directory,
            certificates,
            binaries / "forebay",
            binaries / "forebay-load",
            options.backend_port or free_port(),
            options.server_cpu,
            load_cpus,
            settings.idle_connections,
            **benches,
        )
        rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
        plan = Plan(chosen, _rows(options), rounds, settings, absent, command)
        with Processes(directory) as processes:
            result = run(plan, scene, processes, documents.ROOT, options.binaries is None)
    return _keep(result, options)


def _keep(result: Result, options: argparse.Namespace) -> int:
    errors = result.errors
    for error in errors:
        print(f"failed: {error}", file=sys.stderr)
    output = options.output
    if output is None and (options.quick or errors or options.only or options.servers):
        # Not whole, so not for the project's documents.
        output = build.target() / "compare"
    if output is None:
        written = documents.publish(result)
    else:
        output.mkdir(parents=True, exist_ok=True)
        written = documents.write_report(result, output)
    for path in written:
        print(path)
    return 1 if errors else 0


def _servers(options: argparse.Namespace) -> tuple[list[servers.Server], dict[str, str]]:
    """Those to measure, and why others are not."""
    known = servers.known()
    names = options.servers.split(",") if options.servers else list(known)
    for name in names:
        if name not in known:
            raise _Exit(f"--servers {name}: no such server; there are {', '.join(known)}")
    wanted = [known[name] for name in names]
    needed = {package for server in wanted if server.missing() for package in server.packages}
    needed |= {program for program in _PROGRAMS if not servers.find(program)}
    packages.install(sorted(needed))
    for program in _PROGRAMS:
        if not servers.find(program):
            raise _Exit(f"{program} is not installed", 1)
    try:
        wanted += [servers.External.parse(text) for text in options.server]
    except ValueError as error:
        raise _Exit(f"--server {error}") from None
    absent = {server.name: why for server in wanted if (why := server.missing())}
    for name, why in absent.items():
        print(f"{name} is not measured: {why}", file=sys.stderr)
    if options.quick and absent:
        raise _Exit("--quick measures all or fails", 1)
    return [server for server in wanted if server.name not in absent], absent


def _rows(options: argparse.Namespace) -> list[measurements.Measurement]:
    names = [name for text in options.only for name in text.split(",")]
    for name in names:
        if name not in measurements.ALL:
            raise _Exit(f"--only {name}: no such row; there are {', '.join(measurements.ALL)}")
    return [row for key, row in measurements.ALL.items() if not names or key in names]


def _settings(options: argparse.Namespace) -> Settings:
    wanted = options.idle or (_QUICK_IDLE if options.quick else _IDLE)
    idle = min(wanted, int(descriptor_limit() * _IDLE_SHARE))
    if idle < wanted:
        print(
            f"RLIMIT_NOFILE is {descriptor_limit()}: {idle} idle connections instead of {wanted}",
            file=sys.stderr,
        )
    seconds = options.seconds or (_QUICK_SECONDS if options.quick else _SECONDS)
    return Settings(seconds, _QUICK_WARM_UP if options.quick else _WARM_UP, idle)


def _cpus(options: argparse.Namespace) -> list[int]:
    """The CPUs of load and backend; the server's must be another one."""
    try:
        cpus = [int(text) for text in options.load_cpus.split(",")]
    except ValueError:
        raise _Exit(f"--load-cpus {options.load_cpus}: not numbers with commas") from None
    allowed = os.sched_getaffinity(0)
    for cpu in (*cpus, options.server_cpu):
        if cpu not in allowed:
            raise _Exit(f"CPU {cpu} is not there: it takes one for the server, one for its load")
    if options.server_cpu in cpus:
        raise _Exit(f"CPU {options.server_cpu} cannot have both the server and its load")
    return cpus


def _render(options: argparse.Namespace) -> int:
    if options.path is None:
        raise _Exit("render: give a result file")
    try:
        result = Result.read(options.path)
    except (OSError, ValueError) as error:
        raise _Exit(str(error)) from None
    if options.output is None:
        written = documents.publish(result)
    else:
        options.output.mkdir(parents=True, exist_ok=True)
        written = documents.write_report(result, options.output)
    for path in written:
        print(path)
    return 0


def _check() -> int:
    findings = documents.check()
    for finding in findings:
        print(finding, file=sys.stderr)
    if findings:
        print("scripts/compare render FILE makes them show FILE", file=sys.stderr)
    return 1 if findings else 0


def _selftest() -> int:
    here = Path(__file__).resolve().parent
    suite = unittest.defaultTestLoader.discover(str(here / "tests"), top_level_dir=str(here.parent))
    outcome = unittest.TextTestRunner(verbosity=1).run(suite)
    return 0 if outcome.wasSuccessful() else 1
