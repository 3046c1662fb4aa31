"""Builds what is measured, as a release is built."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from .processes import Failed

ROOT = Path(__file__).resolve().parents[2]


def programs() -> Path:
    """Builds forebay and forebay-load; the directory that they are in."""
    _run("build", "--release", "--bins")
    return target() / "release"


def bench(name: str) -> Path:
    """Builds one of `benches/`; where it is."""
    printed = _run("bench", "--no-run", "--bench", name, "--message-format", "json-render-diagnostics")
    for line in reversed(printed.splitlines()):
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    raise Failed(f"cargo does not say where the bench {name} is")


def target() -> Path:
    """Where cargo builds."""
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def _run(verb: str, *options: str) -> str:
    cargo = shutil.which("cargo") or str(Path.home() / ".cargo/bin/cargo")
    command = [cargo, verb, "--locked", "--quiet", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"cargo {verb} failed")
    return done.stdout
