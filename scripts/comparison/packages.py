"""Installs Debian packages that are missing, where that is possible."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


def install(packages: list[str]) -> None:
    """Installs them as root on Debian; otherwise says what is missing and goes on."""
    if not packages:
        return
    wanted = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"missing, and so not measured: {wanted} (root on Debian installs)", file=sys.stderr)
        return
    print(f"installing {wanted}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                print(f"{' '.join(command)} failed: going on without", file=sys.stderr)
                return


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """The comparison starts its own instances: keeps the packages from starting theirs."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
