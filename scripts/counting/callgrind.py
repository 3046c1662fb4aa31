"""Runs a program under callgrind and reads what it counted.

The format of its output: https://valgrind.org/docs/manual/cl-format.html
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from comparison.processes import Failed

#: Functions of `benches/instructions/counted.rs`: each entry and exit toggles the count.
_TOGGLES = ("*toggle_counted*", "*toggle_uncounted*")

#: Sources of the cryptographic library's C and assembly, as its debug information has them.
_CRYPTOGRAPHY = "/aws-lc/"

#: The source file of what follows: of a function, or of what was inlined into it.
_FILE = re.compile(r"(?:fl|fi|fe)=\((\d+)\)(?: (.*))?$")

#: The source file of a callee, where its name may be given for the first time.
_FILE_OF_CALLEE = re.compile(r"(?:cfl|cfi)=\((\d+)\) (.*)$")

#: A position, absolute or relative to the one before, and the instructions there.
_COST = re.compile(r"[+*-]?\d* (\d+)$")


@dataclass(frozen=True)
class Count:
    """Instructions of one work."""

    total: int
    #: Without those in C and assembly of the cryptographic library.
    own: int


def count(program: Path, work: str) -> Count:
    """Counts one work of `program`."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
        command += [f"--toggle-collect={name}" for name in _TOGGLES]
        command += [str(program), "run", work]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        return parse(output.read_text())


def parse(output: str) -> Count:
    """Adds up the self cost of every line of every source file."""
    files: dict[str, str] = {}
    total = cryptography = 0
    of_callee = False
    current = ""
    for line in output.splitlines():
        if match := _FILE.match(line):
            number, name = match.groups()
            current = files.setdefault(number, name or "")
        elif match := _FILE_OF_CALLEE.match(line):
            files[match[1]] = match[2]
        elif line.startswith("calls="):
            # The next line has what the callee took, which is counted where it is.
            of_callee = True
        elif match := _COST.match(line):
            if not of_callee:
                cost = int(match[1])
                total += cost
                cryptography += cost if _CRYPTOGRAPHY in current else 0
            of_callee = False
    return Count(total, total - cryptography)


def version() -> str:
    """The version of valgrind; it decides which instructions programs find."""
    done = subprocess.run(["valgrind", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()
