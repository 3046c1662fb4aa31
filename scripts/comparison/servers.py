"""Who is measured: how each is configured, started and asked for its version.

Every server has one configuration with one data core, and one as an operator would run it,
on every CPU there is. All relay to the same backend, with the same certificates, and listen
on two ports: one for each kind of key. Beyond that they have their defaults.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .goals import FLOOR
from .processes import Failed, Processes, Unsupported
from .scene import Scene

#: Connections beside the idle ones: those that ask, and those of before that are not gone yet.
SPARE_CONNECTIONS = 400

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    name: str
    ecdsa_port: int
    #: `None`: it serves no RSA certificate.
    rsa_port: int | None
    pids: list[int]
    plain: bool = False


@dataclass(frozen=True)
class Server:
    """One of the programs that the comparison starts itself."""

    name: str = ""
    title: str = ""
    program: str = ""
    #: Debian packages that it comes in.
    packages: tuple[str, ...] = ()
    #: Relays without TLS: the floor.
    plain: bool = False

    def missing(self) -> str | None:
        """What is not installed."""
        return None if find(self.program) else f"{self.program} is not installed"

    def version(self, scene: Scene) -> str:
        return ""

    def configuration(self, scene: Scene, one_core: bool) -> str:
        raise NotImplementedError

    def command(self, scene: Scene, file: Path) -> list[str]:
        raise NotImplementedError

    @contextlib.contextmanager
    def started(self, processes: Processes, scene: Scene, one_core: bool) -> Iterator[Running]:
        """Starts it anew, on one CPU or as an operator would, and ends it afterwards."""
        file = scene.directory / f"{self.name}.conf"
        file.write_text(self.configuration(scene, one_core))
        cpus = [scene.server_cpu] if one_core else None
        ports = [scene.port(f"{self.name} ecdsa"), scene.port(f"{self.name} rsa")]
        if self.plain:
            ports.pop()
        command = self.command(scene, file)
        command[0] = find(command[0]) or command[0]
        with processes.running(command, cpus, port=ports[0]) as process:
            yield Running(
                self.name,
                ports[0],
                None if self.plain else ports[1],
                [process.pid],
                self.plain,
            )


class Forebay(Server):
    def __init__(self) -> None:
        super().__init__("forebay", "forebay")

    def missing(self) -> str | None:
        return None  # it is built by then

    def version(self, scene: Scene) -> str:
        return _version([str(scene.forebay), "--version"], r"forebay (\S+)")

    def configuration(self, scene: Scene, one_core: bool) -> str:
        cpu = f"cpus = [{scene.server_cpu}]"
        engine = f"engines = 1\n{cpu}" if one_core else ""
        workers = f"workers = 1\n{cpu}" if one_core else ""
        listeners = "\n".join(
            f"""
[[listener]]
name = "{key}"
address = "127.0.0.1:{scene.port(f"forebay {key}")}"
certificates = ["{scene.certificates.pem(key)}"]
pool = "backend"
"""
            for key in ("ecdsa", "rsa")
        )
        return f"""{listeners}
[[pool]]
name = "backend"
backends = ["127.0.0.1:{scene.backend_port}"]

[engine]
max_connections = {scene.idle_connections + SPARE_CONNECTIONS}
{engine}

[handshake]
{workers}

[log]
level = "warn"
"""

    def command(self, scene: Scene, file: Path) -> list[str]:
        return [str(scene.forebay), "run", "-c", str(file)]


class Haproxy(Server):
    def __init__(self) -> None:
        super().__init__("haproxy", "HAProxy", "haproxy", ("haproxy",))

    def version(self, scene: Scene) -> str:
        return _version(["haproxy", "-v"], r"HAProxy version (\d+(?:\.\d+)*)")

    def configuration(self, scene: Scene, one_core: bool) -> str:
        return _haproxy(
            scene,
            one_core,
            "\n".join(
                f"""
listen {key}
  bind 127.0.0.1:{scene.port(f"haproxy {key}")} ssl crt {scene.certificates.pem(key)}
  server backend 127.0.0.1:{scene.backend_port}
"""
                for key in ("ecdsa", "rsa")
            ),
        )

    def command(self, scene: Scene, file: Path) -> list[str]:
        return ["haproxy", "-db", "-f", str(file)]


class Plain(Server):
    """HAProxy that relays TCP without TLS: what any relay of this kind costs."""

    def __init__(self) -> None:
        super().__init__("plain", "HAProxy, plain TCP", "haproxy", ("haproxy",), plain=True)

    def configuration(self, scene: Scene, one_core: bool) -> str:
        return _haproxy(
            scene,
            one_core,
            f"""
listen plain
  bind 127.0.0.1:{scene.port("plain ecdsa")}
  server backend 127.0.0.1:{scene.backend_port}
""",
        )

    command = Haproxy.command


def _haproxy(scene: Scene, one_core: bool, listeners: str) -> str:
    threads = "nbthread 1" if one_core else ""
    return f"""
global
  {threads}
  maxconn {scene.idle_connections + SPARE_CONNECTIONS}
  tune.ssl.default-dh-param 2048
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{listeners}"""


class Nginx(Server):
    def __init__(self) -> None:
        super().__init__(
            "nginx", "nginx stream", "nginx", ("nginx", "libnginx-mod-stream")
        )

    def missing(self) -> str | None:
        module = None if STREAM_MODULE.exists() else "nginx's stream module is not installed"
        return super().missing() or module

    def version(self, scene: Scene) -> str:
        return _version(["nginx", "-v"], r"nginx/(\S+)")

    def configuration(self, scene: Scene, one_core: bool) -> str:
        certificates = scene.certificates
        servers = "\n".join(
            f"""
  server {{
    listen 127.0.0.1:{scene.port(f"nginx {key}")} ssl backlog=4096;
    ssl_certificate {certificates.chain(key)};
    ssl_certificate_key {certificates.key(key)};
    proxy_pass 127.0.0.1:{scene.backend_port};
  }}"""
            for key in ("ecdsa", "rsa")
        )
        connections = 2 * (scene.idle_connections + SPARE_CONNECTIONS)
        return f"""
load_module {STREAM_MODULE};
daemon off;
pid {scene.directory}/nginx.pid;
error_log stderr error;
worker_processes {1 if one_core else "auto"};
events {{ worker_connections {connections}; }}
stream {{
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:TLS:10m;
{servers}
}}
"""

    def command(self, scene: Scene, file: Path) -> list[str]:
        return ["nginx", "-e", "stderr", "-c", str(file)]


class Hitch(Server):
    def __init__(self) -> None:
        super().__init__("hitch", "hitch", "hitch", ("hitch",))

    def version(self, scene: Scene) -> str:
        return _version(["hitch", "--version"], r"hitch (\d+(?:\.\d+)*)")

    def configuration(self, scene: Scene, one_core: bool) -> str:
        frontends = "\n".join(
            f'frontend = {{ host = "127.0.0.1" port = "{scene.port(f"hitch {key}")}" '
            f'pem-file = "{scene.certificates.pem(key)}" }}'
            for key in ("ecdsa", "rsa")
        )
        user = 'user = "_hitch"' if os.geteuid() == 0 and _is_user("_hitch") else ""
        return f"""
{frontends}
backend = "[127.0.0.1]:{scene.backend_port}"
workers = {1 if one_core else os.cpu_count()}
daemon = off
quiet = on
backlog = 4096
tls-protos = TLSv1.2 TLSv1.3
{user}
"""

    def command(self, scene: Scene, file: Path) -> list[str]:
        return ["hitch", f"--config={file}"]


class Stunnel(Server):
    """A thread for each connection; on one CPU, one of them runs at a time."""

    def __init__(self) -> None:
        super().__init__("stunnel", "stunnel", "stunnel4", ("stunnel4",))

    def version(self, scene: Scene) -> str:
        return _version(["stunnel4", "-version"], r"stunnel (\d+(?:\.\d+)*)")

    def configuration(self, scene: Scene, one_core: bool) -> str:
        services = "\n".join(
            f"""
[{key}]
accept = 127.0.0.1:{scene.port(f"stunnel {key}")}
connect = 127.0.0.1:{scene.backend_port}
cert = {scene.certificates.pem(key)}
"""
            for key in ("ecdsa", "rsa")
        )
        return f"""
foreground = quiet
pid =
debug = err
sslVersionMin = TLSv1.2
TIMEOUTclose = 0
{services}"""

    def command(self, scene: Scene, file: Path) -> list[str]:
        return ["stunnel4", str(file)]


class Floor(Server):
    """`benches/floor`: what the same system calls and cryptography cost in a bare loop."""

    def __init__(self) -> None:
        super().__init__(FLOOR, "bare loop")

    def missing(self) -> str | None:
        return None  # it is built by then

    def configuration(self, scene: Scene, one_core: bool) -> str:
        return ""

    def command(self, scene: Scene, file: Path) -> list[str]:
        if scene.floor is None:
            raise Unsupported("the bench was not built: --binaries was given")
        command = [str(scene.floor), "serve", "--backend", f"127.0.0.1:{scene.backend_port}"]
        for key in ("ecdsa", "rsa"):
            port = scene.port(f"{FLOOR} {key}")
            command += ["--listen", f"127.0.0.1:{port}={scene.certificates.pem(key)}"]
        return command


@dataclass(frozen=True)
class External(Server):
    """A server of the operator's own, which runs already: NAME=PORT[/RSA_PORT]:PID[,PID…]."""

    ecdsa_port: int = 0
    rsa_port: int | None = None
    pids: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "External":
        match = re.fullmatch(r"([\w.-]+)=(\d+)(?:/(\d+))?:(\d+(?:,\d+)*)", text)
        if not match:
            raise ValueError(f"{text}: not NAME=PORT:PID, NAME=PORT/RSA_PORT:PID or with PID,PID")
        name, port, rsa_port, pids = match.groups()
        return cls(
            name,
            name,
            ecdsa_port=int(port),
            rsa_port=int(rsa_port) if rsa_port else None,
            pids=[int(pid) for pid in pids.split(",")],
        )

    def missing(self) -> str | None:
        gone = [pid for pid in self.pids if not Path(f"/proc/{pid}").exists()]
        return f"there is no process {gone[0]}" if gone else None

    def configuration(self, scene: Scene, one_core: bool) -> str:
        return ""

    @contextlib.contextmanager
    def started(self, processes: Processes, scene: Scene, one_core: bool) -> Iterator[Running]:
        yield Running(self.name, self.ecdsa_port, self.rsa_port, self.pids)


def known() -> dict[str, Server]:
    """The servers that can be started here, in the order of the tables."""
    servers = (Forebay(), Haproxy(), Nginx(), Hitch(), Stunnel(), Plain(), Floor())
    return {server.name: server for server in servers}


def find(program: str) -> str | None:
    """Also where Debian keeps what only root is supposed to start."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _version(command: list[str], pattern: str) -> str:
    # Some say it on standard error, and some with an exit code of 1.
    try:
        done = subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]} does not tell its version: {error}") from error
    match = re.search(pattern, done.stdout)
    return match.group(1) if match else ""


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
        return True
    except KeyError:
        return False
