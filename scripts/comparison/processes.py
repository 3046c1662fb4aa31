"""Starts programs on given CPUs and ends every one of them, whatever happens."""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

#: How long a server may take to listen, and a program to end after it was asked to.
START_SECONDS = 10.0
STOP_SECONDS = 3.0

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Failed(Exception):
    """A program did not do what it was started for; the text says which and why."""


class Unsupported(Exception):
    """What is to be measured is not there, and nothing is wrong with that."""


def descriptor_limit() -> int:
    """The hard limit of RLIMIT_NOFILE, which every program started here gets."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


class Processes:
    """The programs that run now. Leaving the `with` block ends them."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._running: list[subprocess.Popen] = []
        self._count = 0

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        for process in reversed(list(self._running)):
            self.stop(process)

    def start(
        self, command: list[str], cpus: Iterable[int] | None, port: int | None = None
    ) -> subprocess.Popen:
        """Starts it on these CPUs (`None`: any) and waits until the loopback port is open."""
        if port is not None and _is_open(port):
            raise Failed(f"port {port} is taken, so {command[0]} cannot be started there")
        self._count += 1
        log = self._directory / f"{self._count}-{Path(command[0]).name}.log"
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C is for this program; it ends the others. Not a session of its own:
                    # each would be scheduled as one group (sched(7), autogroup), so that a
                    # storm's maker, which gives way to everybody, gave way to nobody in another.
                    process_group=0,
                    preexec_fn=_prepare(cpus),
                )
        except OSError as error:
            raise Failed(f"{command[0]} cannot be started: {error}") from error
        process.log = log
        self._running.append(process)
        if port is not None:
            self._wait_for_port(process, port)
        return process

    def _wait_for_port(self, process: subprocess.Popen, port: int) -> None:
        end = time.monotonic() + START_SECONDS
        while not _is_open(port):
            if process.poll() is not None or time.monotonic() > end:
                name, said = Path(process.args[0]).name, last_lines(process.log)
                self.stop(process)
                raise Failed(f"{name} does not listen on port {port}: {said}")
            time.sleep(0.02)

    def stop(self, process: subprocess.Popen) -> None:
        """Asks it to end, once more (forebay drains first), then ends it."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                break
        if process in self._running:
            self._running.remove(process)

    @contextlib.contextmanager
    def running(self, *arguments, **named) -> Iterator[subprocess.Popen]:
        process = self.start(*arguments, **named)
        try:
            yield process
        finally:
            self.stop(process)


def run(command: list[str], seconds_max: float, cpus: Iterable[int] | None = None) -> str:
    """Runs a program to its end and returns what it printed."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            preexec_fn=_prepare(cpus),
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} did not end within {seconds_max:.0f} s: {command}") from None
    except OSError as error:
        raise Failed(f"{name} cannot be run: {error}") from error
    if done.returncode != 0:
        said = " / ".join(done.stderr.strip().splitlines()[-5:])
        raise Failed(f"{' '.join([name, *command[1:]])}: exit code {done.returncode}: {said}")
    return done.stdout


def last_lines(log: Path, count: int = 5) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-count:]) or "it said nothing"


def _prepare(cpus: Iterable[int] | None):
    """What a child does between fork and exec."""
    chosen = None if cpus is None else set(cpus)
    limit = descriptor_limit()
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        # A child outlives this program by no more than a signal, even if it is killed.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        if chosen is not None:
            os.sched_setaffinity(0, chosen)

    return prepare


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


