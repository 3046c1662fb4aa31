"""What one must know of the machine to judge figures that were taken on it."""

import os
import platform
import re
import subprocess
from pathlib import Path

from .processes import descriptor_limit

_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpus() -> int:
    return os.cpu_count() or 1


def facts() -> dict:
    """Nothing here names the machine or its owner."""
    return {
        "processor": _processor(),
        "cpus": cpus(),
        "memory_gib": round(_memory_bytes() / 2**30),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "virtual": "hypervisor" in _cpuinfo("flags").split(),
        "mitigations": _mitigations(),
        "governor": _read(_GOVERNOR),
        "descriptor_limit": descriptor_limit(),
        "somaxconn": int(_read(Path("/proc/sys/net/core/somaxconn")) or 0),
    }


def software() -> dict:
    return {
        "openssl": _first_line(["openssl", "version"]),
        "rustc": _first_line(["rustc", "--version"]),
        "build": _build(),
        "python": platform.python_version(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "")
        if Path("/etc/os-release").exists()
        else "",
    }


def _build() -> str:
    """The profile, and what the environment changes of it."""
    changes = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith("CARGO_PROFILE_RELEASE_") or name in ("RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS")
    ]
    return " ".join(["release", *changes])


def load_average() -> float:
    """Of the last minute: how busy the machine was with other things."""
    return round(os.getloadavg()[0], 2)


def stolen_ticks() -> int:
    """Clock ticks that the hypervisor gave to others, all CPUs, since boot (proc_stat(5))."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()


def _cpuinfo(key: str) -> str:
    match = re.search(rf"^{key}\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1).strip() if match else ""


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _mitigations() -> dict[str, str]:
    """What the kernel does against the processor's faults: each costs system calls time."""
    if not _VULNERABILITIES.is_dir():
        return {}
    states = {file.name: _read(file) or "" for file in sorted(_VULNERABILITIES.iterdir())}
    return {name: state for name, state in states.items() if state != "Not affected"}


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0]
