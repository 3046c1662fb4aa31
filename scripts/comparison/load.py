"""forebay-load: the load, the same for every server, and what it reports."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .processes import Failed, Processes, Unsupported, last_lines, run
from .scene import NAME, Scene
from .servers import Running

#: Beyond the time that a load is to take.
PATIENCE_SECONDS = 120.0


class Load:
    """Loads one server that runs."""

    def __init__(self, scene: Scene, processes: Processes, server: Running):
        self._scene = scene
        self._processes = processes
        self.server = server

    def knows(self, mode: str) -> bool:
        """Whether this forebay-load has the mode."""
        try:
            run([str(self._scene.forebay_load), mode, "--help"], PATIENCE_SECONDS)
        except Failed:
            return False
        return True

    def measure(
        self,
        mode: str,
        *options: str,
        port: int | None = None,
        seconds: float,
        warm_up: float = 0.0,
    ) -> dict:
        """Runs one load to its end; returns its report. A failed operation is an error."""
        command = self._command(mode, port or self.server.ecdsa_port, *options)
        # A machine with other work to do may give the server no time in a short one.
        for longer in (1, 5, 25):
            span = longer * seconds
            window = ["--duration", f"{span:g}s", "--warm-up", f"{warm_up:g}s"]
            # A storm has two phases.
            seconds_max = 2 * (span + warm_up) + PATIENCE_SECONDS
            text = run(command + window, seconds_max, self._scene.load_cpus)
            report = _parse(text, mode)
            if report.get("operations") or report.get("bytes"):
                return _checked(report, mode)
        raise Failed(f"forebay-load {mode}: nothing was completed in {span:g} s")

    def scaling(self, rounds: int, seconds: float) -> dict:
        """Runs `benches/scaling.rs`, on all CPUs; returns its report."""
        if self._scene.scaling is None:
            raise Unsupported("the bench was not built: --binaries was given")
        command = [str(self._scene.scaling), "--json", "--rounds", str(rounds)]
        command += ["--seconds", f"{seconds:g}"]
        return _parse(run(command, 2 * rounds * seconds + PATIENCE_SECONDS), "scaling")

    @contextlib.contextmanager
    def holding_idle(self, connections: int) -> Iterator[None]:
        """Holds idle connections, all of them established, until the block is left."""
        command = [sys.executable, str(Path(__file__).with_name("idle_clients.py"))]
        command += [str(self.server.ecdsa_port), str(connections)]
        command += ["plain"] if self.server.plain else []
        with self._processes.running(command, self._scene.load_cpus) as process:
            end = time.monotonic() + PATIENCE_SECONDS
            while "held" not in process.log.read_text():
                if process.poll() is not None or time.monotonic() > end:
                    said = last_lines(process.log)
                    raise Failed(f"{connections} idle connections do not come to stand: {said}")
                time.sleep(0.1)
            yield
            if process.poll() is not None:
                raise Failed(f"the idle connections ended early: {last_lines(process.log)}")

    @contextlib.contextmanager
    def busy_cpus(self) -> Iterator[None]:
        """Keeps the CPUs of server and load busy with work that gives way to any other.

        Neither sleeps then, and a hypervisor gives them no less of its own CPUs than when
        they are busy with a storm.
        """
        loop = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]
        with contextlib.ExitStack() as stack:
            for cpu in (self._scene.server_cpu, *self._scene.load_cpus):
                stack.enter_context(self._processes.running(loop, [cpu]))
            yield

    def memory_bytes(self) -> int:
        """Proportional set size of the server's processes (proc_pid_smaps_rollup(5))."""
        return sum(map(_pss_bytes, family(self.server.pids)))

    def _command(self, mode: str, port: int, *options: str) -> list[str]:
        scene = self._scene
        command = [str(scene.forebay_load), mode, f"127.0.0.1:{port}", *options]
        command += ["--server-name", NAME, "--json", "--quiet"]
        command += ["--cpus", ",".join(map(str, scene.load_cpus))]
        for pid in self.server.pids:
            command += ["--server-pid", str(pid)]
        if self.server.plain:
            command.append("--plain")
        return command


def family(pids: list[int]) -> list[int]:
    """These processes and all that descend from them."""
    found = list(pids)
    for pid in found:  # grows while it is gone through
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise Failed(f"the memory of process {pid} cannot be read: {error}") from error
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _parse(text: str, mode: str) -> dict:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Failed(f"forebay-load {mode}: not JSON ({error}): {text[:200]!r}") from error


def _checked(report: dict, mode: str) -> dict:
    """A storm has failures, and says how many; nothing else may have any."""
    if mode != "mixed":
        failed = {cause: count for cause, count in report.get("failed", {}).items() if count}
        if failed:
            raise Failed(f"forebay-load {mode}: operations failed: {failed}")
    return report
