"""Runs cases: every variant of one started, then loaded in turn, slice by slice."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comparison import backend
from comparison.processes import Failed, Processes, last_lines, run
from comparison.scene import NAME, Scene

from .cases import WORKS, Case, Variant, Work

#: What latencies are reported.
QUANTILES = ("p50", "p99", "p99_9")

WARM_UP_SECONDS = 0.1
START_SECONDS = 20.0
PATIENCE_SECONDS = 60.0
CONNECTIONS_MAX = 1000

#: Addresses for documentation (RFC 5737); they exist in the run's own namespaces only.
_SERVER, _CLIENT = "192.0.2.1", "192.0.2.2"


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    #: Other programs of the machine are kept off its CPUs while a slice runs (SCHED_RR).
    realtime: bool


class Place:
    """Where a case's programs run, and how its client reaches them."""

    def __init__(self, server: list[str], client: list[str], address: str):
        self.server, self.client, self.address = server, client, address


@contextlib.contextmanager
def place(network: bool) -> Iterator[Place]:
    """Loopback, or two network namespaces with a veth pair between."""
    if not network:
        yield Place([], [], "127.0.0.1")
        return
    names = [f"forebay-try-{os.getpid()}-{end}" for end in ("server", "client")]
    inside = [["ip", "netns", "exec", name] for name in names]
    try:
        for name in names:
            run(["ip", "netns", "add", name], 10)
        veth = ["veth0", "netns", names[0], "type", "veth", "peer", "veth0", "netns", names[1]]
        run(["ip", "link", "add", *veth], 10)
        for name, command, address in zip(names, inside, (_SERVER, _CLIENT), strict=True):
            run(["ip", "-n", name, "address", "add", f"{address}/30", "dev", "veth0"], 10)
            for device in ("lo", "veth0"):
                run(["ip", "-n", name, "link", "set", device, "up"], 10)
            # A veth has NAPI once it merges packets.
            run([*command, "ethtool", "-K", "veth0", "gro", "on"], 10)
        yield Place(*inside, _SERVER)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def take(case: Case, scene: Scene, settings: Settings) -> list[dict]:
    """The samples of one case: a figure for each work, variant and round."""
    samples = []
    with place(case.network) as where, Processes(scene.directory) as processes:
        scene.load_cpus = list(case.load_cpus)
        _start_backend(processes, scene, where, case)
        servers = {
            variant.name: _start(processes, scene, where, case, variant)
            for variant in case.variants
        }
        for key in case.works:
            for number in range(settings.rounds):
                # Nobody is always the first, or always behind the same other one.
                shift = number % len(case.variants)
                for variant in case.variants[shift:] + case.variants[:shift]:
                    with _alone(variant.name, servers):
                        figures = _slice(
                            WORKS[key], scene, where, case, servers[variant.name], settings
                        )
                    where_from = {"case": case.key, "work": key, "variant": variant.name}
                    samples.append(where_from | {"round": number} | figures)
            print(f"{case.key} {key}: {settings.rounds} rounds", file=sys.stderr, flush=True)
    return samples


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen
    port: int


def _start_backend(processes: Processes, scene: Scene, where: Place, case: Case) -> None:
    shutil.rmtree(scene.directory / "site", ignore_errors=True)  # the last case's
    inside = _Inside(processes, where) if case.network else processes
    backend.start(inside, scene, [0, 1024, 20_000_000], 20_000_000)


class _Inside:
    """Starts programs inside a namespace, and sees there whether they listen."""

    def __init__(self, processes: Processes, where: Place):
        self._processes, self._where = processes, where

    def start(self, command: list[str], cpus, port: int) -> subprocess.Popen:
        process = self._processes.start([*self._where.server, *command], cpus)
        _wait_until_listening(process, port)
        return process


def _wait_until_listening(process: subprocess.Popen, port: int) -> None:
    end, wanted = time.monotonic() + START_SECONDS, f":{port:04X} "
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            # What the process's own namespace has (proc_pid_net(5)); 0A is LISTEN.
            lines = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()
            if any(wanted in line and " 0A " in line for line in lines):
                return
        time.sleep(0.02)
    raise Failed(f"{process.args}: does not listen on {port}: {last_lines(process.log)}")


def _start(
    processes: Processes, scene: Scene, where: Place, case: Case, variant: Variant
) -> _Server:
    port = scene.port(f"{case.key} {variant.name}")
    file = scene.directory / f"{case.key}-{case.variants.index(variant)}.toml"
    file.write_text(_configuration(scene, case, variant, port))
    environment = [f"{name}={value}" for name, value in variant.environment.items()]
    command = [*where.server, "env", *environment, str(scene.forebay), "run", "-c", str(file)]
    process = processes.start(command, None)
    _wait_until_listening(process, port)
    return _Server(process, port)


def _configuration(scene: Scene, case: Case, variant: Variant, port: int) -> str:
    engine = {
        "cpus": str(list(case.engine_cpus)),
        "max_connections": str(CONNECTIONS_MAX),
        **variant.engine,
    }
    handshake = {} if "inline" in variant.handshake else {"workers": "1", "cpus": "[1]"}
    keys = {"engine": engine, "handshake": handshake | variant.handshake}
    sections = "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for section, values in keys.items()
    )
    return f"""
[[listener]]
address = "0.0.0.0:{port}"
certificates = ["{scene.certificates.pem("ecdsa")}"]
pool = "backend"
[[pool]]
name = "backend"
backends = ["127.0.0.1:{scene.backend_port}"]
{sections}
[log]
level = "warn"
"""


@contextlib.contextmanager
def _alone(name: str, servers: dict[str, _Server]) -> Iterator[None]:
    """Every other server is stopped: one that polls would have their CPU."""
    others = [server.process for other, server in servers.items() if other != name]
    servers[name].process.send_signal(signal.SIGCONT)
    for process in others:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in others:
            process.send_signal(signal.SIGCONT)


def _slice(
    work: Work, scene: Scene, where: Place, case: Case, server: _Server, settings: Settings
) -> dict:
    address = f"{where.address}:{server.port}"
    command = [*where.client, str(scene.forebay_load), work.options[0], address]
    command += [*work.options[1:], "--tls", "1.3", "--group", "X25519", "--server-name", NAME]
    command += ["--json", "--quiet", "--server-pid", str(server.process.pid)]
    command += ["--cpus", ",".join(map(str, case.load_cpus))]
    command += ["--duration", f"{settings.seconds * 1000:.0f}ms"]
    command += ["--warm-up", f"{WARM_UP_SECONDS * 1000:.0f}ms"]
    text = run(command, settings.seconds + PATIENCE_SECONDS, list(case.load_cpus))
    report = json.loads(text)
    figures = {"cost": report["server"][work.cost], "rate": report["rate_per_second"]}
    if work.latency:
        figures |= {name: report["latency_us"][name] for name in QUANTILES}
    return figures
