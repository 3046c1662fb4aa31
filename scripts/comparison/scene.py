"""What all servers have in common: certificates, the backend's address, ports, directory."""

import os
import random
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Failed, run

NAME = "localhost"

#: Key, its openssl options.
_KEYS = {
    "ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "rsa": ["rsa:2048"],
}


@dataclass(frozen=True)
class Certificates:
    """Chain and key in one PEM file, for servers that want them so, and apart."""

    directory: Path

    def pem(self, key: str) -> Path:
        return self.directory / f"{key}.pem"

    def chain(self, key: str) -> Path:
        return self.directory / f"{key}.crt"

    def key(self, key: str) -> Path:
        return self.directory / f"{key}.key"

    def make_missing(self) -> None:
        """Self-signed: an ECDSA P-256 one and an RSA-2048 one, with the same names."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for key, options in _KEYS.items():
            if self.pem(key).exists():
                continue
            command = ["openssl", "req", "-x509", "-newkey", *options, "-nodes", "-days", "30"]
            command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
            command += ["-keyout", str(self.key(key)), "-out", str(self.chain(key))]
            run(command, 60)
            self.pem(key).write_text(self.chain(key).read_text() + self.key(key).read_text())
            for file in (self.key(key), self.pem(key)):
                file.chmod(0o640)
                _let_read(file, "_hitch")


def _let_read(file: Path, group: str) -> None:
    """hitch reads its certificates again as its own user."""
    if os.geteuid() == 0:
        try:
            shutil.chown(file, group=group)
        except LookupError:
            pass  # not installed


def free_port() -> int:
    """A loopback port that nobody has: below those that outgoing connections are given.

    Servers are started many times at the same port; a port that outgoing connections use
    too might be taken by then.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = random.randrange(10_000, max(low, 20_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port found on 127.0.0.1")


@dataclass
class Scene:
    """Where everything is."""

    directory: Path
    certificates: Certificates
    forebay: Path
    forebay_load: Path
    backend_port: int
    server_cpu: int
    load_cpus: list[int]
    #: Connections that a server must be able to hold at once, beside some more.
    idle_connections: int
    #: The bench `scaling`, if it was built.
    scaling: Path | None = None
    #: The bench `floor`, if it was built.
    floor: Path | None = None
    _ports: dict[str, int] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port that this name has for the whole run."""
        if name not in self._ports:
            port = free_port()
            while port in self._ports.values() or port == self.backend_port:
                port = free_port()
            self._ports[name] = port
        return self._ports[name]
