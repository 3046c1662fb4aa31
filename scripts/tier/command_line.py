"""scripts/tier-lab up | status | test | down."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import trials
from .bird import Bird
from .frr import Frr
from .lab import Failed, Lab
from .routing import Routing

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAMS = ["ip", "nft", "ss", "sysctl", "haproxy", "nginx", "openssl", "curl"]
_ROUTING: dict[str, Routing] = {"bird": Bird(), "frr": Frr()}


def main(arguments: list[str]) -> int:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    wanted = _parser().parse_args(arguments)
    if wanted.command in ("up", "test") and (reason := _cannot(_ROUTING[wanted.routing])):
        print(f"skipped: {reason}")
        return 0 if wanted.command == "test" else 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return wanted.run(wanted)
    except (Failed, OSError) as error:
        print(f"scripts/tier-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/tier-lab",
        description="A whole tier in network namespaces of this machine: BIRD or FRR and ECMP, "
        "three forebay, two HAProxy, two nginx. Needs root. docs/TIER.md explains it.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run, text in [
        ("up", _up, "start it and leave it running"),
        ("status", _status, "show routes and health"),
        ("test", _test, "start one of its own, try what a tier promises, end it"),
        ("down", _down, "end what `up` started"),
    ]:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if name != "test":
            command.add_argument("--directory", type=Path,
                                 default=Path(tempfile.gettempdir(), "forebay-tier-lab"),
                                 help="where its files are [default: %(default)s]")
        if name in ("up", "test"):
            command.add_argument("--forebay", type=Path,
                                 help="the program [default: target/release/forebay, or "
                                 "target/debug/forebay where there is no other]")
            command.add_argument("--routing", choices=_ROUTING, default="bird",
                                 help="what speaks BGP; with frr `test` tries only what depends "
                                 "on it [default: %(default)s]")
    return parser


def _cannot(routing: Routing) -> str | None:
    """Why there can be no lab here."""
    programs = _PROGRAMS + routing.programs
    if missing := [program for program in programs if shutil.which(program) is None]:
        return f"{', '.join(missing)} not installed"
    name = f"fb{os.getpid()}-probe"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"no network namespace can be made here: {done.stderr.strip()}"
    try:
        for command in [
            ["ip", "-n", name, "link", "add", "type", "veth"],
            ["ip", "netns", "exec", name, "nft", "add table ip t; add chain ip t c "
             "{ type filter hook prerouting priority 0; }; add rule ip t c ct mark set 1"],
        ]:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"{' '.join(command)}: {done.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
    return None


def _forebay(wanted: argparse.Namespace) -> Path:
    builds = [_ROOT / "target" / build / "forebay" for build in ("release", "debug")]
    for path in [wanted.forebay] if wanted.forebay else builds:
        if path.is_file():
            return path.resolve()
    raise Failed("there is no forebay: cargo build --release --locked, or --forebay FILE")


def _new(directory: Path, wanted: argparse.Namespace) -> Lab:
    prefix = f"fb{os.getpid()}"
    lab = Lab(directory, prefix, _forebay(wanted), _ROUTING[wanted.routing])
    (directory / "lab").write_text(f"{prefix}\n{lab.forebay}\n{wanted.routing}\n")
    return lab


def _existing(wanted: argparse.Namespace) -> Lab:
    file = wanted.directory / "lab"
    if not file.is_file():
        raise Failed(f"there is no lab in {wanted.directory}: scripts/tier-lab up")
    prefix, forebay, routing = file.read_text().splitlines()
    return Lab(wanted.directory, prefix, Path(forebay), _ROUTING[routing])


def _up(wanted: argparse.Namespace) -> int:
    try:
        wanted.directory.mkdir(mode=0o755, parents=True)
    except FileExistsError:
        raise Failed(f"{wanted.directory} exists: scripts/tier-lab down, or --directory") from None
    lab = _new(wanted.directory, wanted)
    try:
        lab.up()
    except BaseException:
        lab.down()
        raise
    print(lab.status())
    print(f"try: ip netns exec {lab.prefix}-client curl --cacert {lab.directory}/authority.pem "
          "--resolve www.tier.test:443:10.80.200.1 https://www.tier.test/")
    return 0


def _status(wanted: argparse.Namespace) -> int:
    print(_existing(wanted).status())
    return 0


def _down(wanted: argparse.Namespace) -> int:
    _existing(wanted).down()
    shutil.rmtree(wanted.directory)
    return 0


def _test(wanted: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="forebay-tier-lab-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # for nginx' workers, which are nobody
        lab = _new(directory, wanted)
        try:
            lab.up()
            # The others do not ask who routes.
            tried = trials.ALL if wanted.routing == "bird" else trials.OF_ROUTING
            trials.run(lab, tried, lambda line: print(line, flush=True))
        finally:
            lab.down()
    return 0
