"""One run: every measurement of every server in turn, round after round."""

import datetime
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import backend, machine
from .goals import FLOOR
from .load import Load
from .measurements import (
    REQUEST_BYTES,
    STREAM_BYTES,
    Measurement,
    Settings,
    Taken,
)
from .processes import Failed, Processes, Unsupported
from .result import FORMAT, Result
from .scene import Scene
from .servers import Server

#: Let the last load's ports and buffers settle before the next.
PAUSE_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    servers: list[Server]
    measurements: list[Measurement]
    rounds: int
    settings: Settings
    #: Why others are not measured.
    absent: dict[str, str]
    command: str


def run(plan: Plan, scene: Scene, processes: Processes, root: Path, built: bool) -> Result:
    """Measures. What fails is a sample with an error, and the run goes on.

    `built`: whether forebay was built from the sources in `root`, as they are now.
    """
    commit, modified = _commit(root)
    began, date = time.monotonic(), datetime.datetime.now(datetime.timezone.utc)
    load_before, stolen_before = machine.load_average(), machine.stolen_ticks()
    described = [_description(server, scene) for server in plan.servers]
    backend.start(processes, scene, [0, REQUEST_BYTES, STREAM_BYTES], STREAM_BYTES)
    samples = []
    for number in range(1, plan.rounds + 1):
        for measurement in plan.measurements:
            # Nobody is always the first, or always behind the same other one.
            shift = (number - 1) % len(plan.servers)
            for server in plan.servers[shift:] + plan.servers[:shift]:
                if server.plain and not measurement.for_plain:
                    continue
                if server.name == FLOOR and not measurement.for_floor:
                    continue
                print(f"round {number}/{plan.rounds}  ", end="", file=sys.stderr)
                sample = _sample(measurement, server, scene, processes, plan.settings)
                samples.append(sample | {"round": number})
                print(_line(sample), file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    ticks = seconds * machine.TICKS_PER_SECOND * machine.cpus()
    return Result(
        {
            "format": FORMAT,
            "commit": commit,
            "modified": modified or not built,
            "date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": plan.command,
            "seconds": round(seconds),
            "load_before": load_before,
            "load_after": machine.load_average(),
            "stolen_share": round((machine.stolen_ticks() - stolen_before) / ticks, 4),
            "machine": machine.facts(),
            "software": machine.software(),
            "settings": {
                "rounds": plan.rounds,
                "seconds": plan.settings.seconds,
                "warm_up": plan.settings.warm_up,
                "idle_connections": plan.settings.idle_connections,
                "server_cpu": scene.server_cpu,
                "load_cpus": scene.load_cpus,
            },
            "servers": described,
            "absent": plan.absent,
            "samples": samples,
        }
    )


def _sample(
    measurement: Measurement,
    server: Server,
    scene: Scene,
    processes: Processes,
    settings: Settings,
) -> dict:
    sample = {"measurement": measurement.key, "server": server.name}
    try:
        with server.started(processes, scene, measurement.one_core) as running:
            time.sleep(PAUSE_SECONDS)
            taken = measurement.take(Load(scene, processes, running), settings)
    except Unsupported as unsupported:
        return sample | {"unsupported": str(unsupported)}
    except Failed as failed:
        return sample | {"error": str(failed)}
    return sample | {"values": _rounded(taken), "reports": taken.reports}


def _rounded(taken: Taken) -> dict[str, float]:
    """To six digits: a result file is read by people too."""
    return {key: float(f"{value:.6g}") for key, value in taken.values.items()}


def _line(sample: dict) -> str:
    head = f"{sample['measurement']:<18} {sample['server']:<10}"
    for key in ("error", "unsupported"):
        if key in sample:
            return f"{head} {key}: {sample[key]}"
    return head + "  ".join(f" {key} {value:g}" for key, value in sample["values"].items())


def _description(server: Server, scene: Scene) -> dict:
    return {
        "name": server.name,
        "title": server.title,
        "version": server.version(scene),
        "plain": server.plain,
        # With one data core; paths without the name of a directory that is gone by then.
        "configuration": server.configuration(scene, True).replace(str(scene.directory), "DIR"),
    }


def _commit(root: Path) -> tuple[str, bool]:
    """The commit, and whether what is built or measures differs from it."""
    sources = ["src", "Cargo.toml", "Cargo.lock", "scripts/compare", "scripts/comparison"]

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)

    commit = git("rev-parse", "HEAD").stdout.strip() or "unknown"
    return commit, bool(git("status", "--porcelain", "--", *sources).stdout.strip())
