"""Starts and ends everything, and does to it what happens to a tier."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import configurations
from .layout import (
    ADMIN, APPLICATIONS, BALANCERS, CLIENT, CLIENT_ADDRESSES, NAMES, NODES, PLACES, SERVICE, Place,
)
from .routing import Routing

#: How long anything may take that must happen.
PATIENCE_SECONDS = 20.0
STOP_SECONDS = 3.0
NETNS = Path("/var/run/netns")
HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """Something is not as a tier must be; the text says what."""


class Lab:
    """A lab whose files are in `directory`; namespaces are named `PREFIX-PLACE`."""

    def __init__(self, directory: Path, prefix: str, forebay: Path, routing: Routing):
        self.directory = directory
        self.prefix = prefix
        self.forebay = forebay
        self.routing = routing
        self._forebays: dict[Place, subprocess.Popen] = {}

    # The whole.

    def up(self) -> None:
        self._files()
        self._networks()
        for app in APPLICATIONS:
            self._spawn(app, ["nginx", "-p", self._of(app), "-c", self._of(app, "nginx.conf")])
        for balancer in BALANCERS:
            self._spawn(balancer, ["haproxy", "-db", "-f", self._of(balancer, "haproxy.cfg")])
        self._route("router", self.directory / "router")
        for node in NODES:
            self.start_node(node)
        self.wait_for_routes(NODES)

    def down(self) -> None:
        """Ends every program in the lab's namespaces, and the namespaces. Not to be stopped."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        names = [name for name in self._namespaces() if (NETNS / name).exists()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            pids = [pid for name in names for pid in self._pids(name)]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number == signal.SIGTERM:
                # forebay serves on while it gives notice; nobody is left to be served.
                end = time.monotonic() + STOP_SECONDS
                while time.monotonic() < end and any(self._pids(name) for name in names):
                    time.sleep(0.05)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def status(self) -> str:
        lines = [f"route of {SERVICE} on the router:"]
        lines += self.run("router", "ip", "route", "show", SERVICE).splitlines() or ["  none"]
        for node in NODES:
            health = self.health(node)
            lines.append(f"{node.name} {node.address}: {health}")
        return "\n".join(lines)

    # Nodes.

    def start_node(self, node: Place) -> None:
        self._route(node.name, self._path(node))
        self._spawn(node, [
            HERE / "announce-while-healthy", f"http://{ADMIN}/health",
            self._of(node, "maintenance"), *self.routing.announcement(self._path(node)),
        ])
        self.start_forebay(node)

    def start_forebay(self, node: Place) -> None:
        command = [self.forebay, "run", "-c", self._of(node, "forebay.toml")]
        self._forebays[node] = self._spawn(node, command)
        self.wait_until(f"{node.name} is healthy", lambda: self.health(node) == "ok")

    def drain(self, node: Place) -> None:
        self._forebays[node].terminate()

    def wait_for_end(self, node: Place) -> None:
        """Until the process that drains there has ended, of itself and with success."""
        process = self._forebays[node]
        self.wait_until(f"{node.name} has drained", lambda: process.poll() is not None)
        if process.returncode != 0:
            raise Failed(f"forebay on {node.name} ended with code {process.returncode}")

    def cut_off(self, node: Place) -> None:
        """As if its power failed: from one moment to the next nothing comes from it."""
        self.run(node.name, "ip", "address", "flush", "dev", "eth0")
        for pid in self._pids(self._namespace(node.name)):
            os.kill(pid, signal.SIGKILL)

    def repair(self, node: Place) -> None:
        self._address(node)
        self.start_node(node)

    def reload(self, node: Place) -> None:
        self.run(node.name, self.forebay, "reload", "-c", self._of(node, "forebay.toml"))

    def maintain(self, node: Place, yes: bool) -> None:
        """Takes its route away, or gives it back; nothing else."""
        file = self._path(node) / "maintenance"
        file.touch() if yes else file.unlink()

    def health(self, node: Place) -> str:
        try:
            return self.run(
                node.name, "curl", "-s", "--noproxy", "*", "--max-time", "1",
                f"http://{ADMIN}/health",
            ).strip()
        except Failed:
            return "no answer"

    def clients_of(self, node: Place) -> set[tuple[str, int]]:
        """Who has a connection to the service there."""
        text = self.run(node.name, "ss", "-Htn", "state", "established", "( sport = :443 )")
        peers = (line.split()[3].rsplit(":", 1) for line in text.splitlines())
        return {(address.strip("[]").removeprefix("::ffff:"), int(port)) for address, port in peers}

    def issue(self, node: Place) -> None:
        """A new certificate for the node's file; the node is not told."""
        self._certificate(self._path(node) / "certificates" / "tier.pem")

    def secrets(self, node: Place) -> Path:
        return self._path(node) / "tier.secrets"

    def replace_secret(self, node: Place) -> None:
        file = self.secrets(node)
        file.unlink()
        self._tool(self.forebay, "ticket-secret", "generate", file)
        self.reload(node)

    # The router.

    def routed(self) -> set[str]:
        """The nodes that the router sends new clients to."""
        words = self.run("router", "ip", "route", "show", SERVICE, "proto",
                         self.routing.kernel_protocol).split()
        return {after for before, after in zip(words, words[1:]) if before == "via"}

    def wait_for_routes(self, nodes: list[Place]) -> None:
        wanted = {node.address for node in nodes}
        self.wait_until(f"the route leads to {sorted(wanted)}", lambda: self.routed() == wanted)

    def sticky(self, yes: bool) -> None:
        if yes:
            rules = self.directory / "router" / "sticky.nft"
            self.run("router", "nft", "-f", rules)
        else:
            self.run("router", "nft", "delete", "table", "ip", "tier")

    @contextlib.contextmanager
    def resilient(self):
        """With a resilient next-hop group in front of the route by BGP."""
        process = self._spawn_in("router", self.directory / "router", [
            HERE / "resilient-nexthops", f"{SERVICE}/32", self.routing.kernel_protocol, "100", "60",
        ])
        try:
            self.wait_until("the group is used", lambda: "nhid 100" in self.run(
                "router", "ip", "route", "show", SERVICE, "metric", "1"))
            yield
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    def resilient_members(self) -> int:
        words = self.run("router", "ip", "nexthop", "show", "id", "100").split()
        return words[words.index("group") + 1].count("/") + 1 if "group" in words else 0

    # Means.

    def run(self, place: str, *command) -> str:
        return self._tool("ip", "netns", "exec", f"{self.prefix}-{place}", *command)

    def wait_until(self, what: str, condition) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}; "
                             f"logs are in {self.directory}")
            time.sleep(0.02)

    def _namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def _namespaces(self) -> list[str]:
        return [self._namespace(name) for name in ["router", *(place.name for place in PLACES)]]

    def _path(self, place: Place) -> Path:
        return self.directory / place.name

    def _of(self, place: Place, file: str = "") -> str:
        return str(self._path(place) / file)

    def _pids(self, namespace: str) -> list[int]:
        done = subprocess.run(
            ["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        # This program is there too: its main thread is a client.
        return [pid for pid in map(int, done.stdout.split()) if pid != os.getpid()]

    def _tool(self, *command) -> str:
        words = [str(word) for word in command]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=PATIENCE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{' '.join(words)}: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise Failed(f"{' '.join(words)}: exit code {done.returncode}: {said}")
        return done.stdout

    def _spawn(self, place: Place, command: list) -> subprocess.Popen:
        return self._spawn_in(place.name, self._path(place), command)

    def _spawn_in(self, name: str, directory: Path, command: list) -> subprocess.Popen:
        program = Path(command[0]).name
        with (directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self._namespace(name), *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)

    def _route(self, name: str, directory: Path) -> None:
        for command, socket in self.routing.commands(directory):
            # One who was killed has left it.
            socket.unlink(missing_ok=True)
            self._spawn_in(name, directory, command)
            self.wait_until(f"{Path(command[0]).name} runs in {name}", socket.exists)

    def _files(self) -> None:
        for name in ["router", *(place.name for place in PLACES)]:
            (self.directory / name).mkdir()
        authority = self.directory / "authority"
        self._tool("openssl", "req", "-x509", "-newkey", "ec",
                   "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                   "-subj", "/CN=tier lab", "-keyout", f"{authority}.key",
                   "-out", f"{authority}.pem")
        self.routing.configure_router(self.directory / "router")
        (self.directory / "router" / "sticky.nft").write_text(configurations.sticky_rules())
        first = self.directory / "first.pem"
        secret = self.directory / "tier.secrets"
        self._certificate(first)
        self._tool(self.forebay, "ticket-secret", "generate", secret)
        for node in NODES:
            path = self._path(node)
            (path / "certificates").mkdir()
            shutil.copy(first, path / "certificates" / "tier.pem")
            shutil.copy(secret, self.secrets(node))
            self.routing.configure_node(path, node)
            (path / "forebay.toml").write_text(
                configurations.forebay(path / "certificates", self.secrets(node)))
        for balancer in BALANCERS:
            (self._path(balancer) / "haproxy.cfg").write_text(configurations.haproxy(balancer))
        for app in APPLICATIONS:
            text = configurations.nginx(self._path(app), app)
            (self._path(app) / "nginx.conf").write_text(text)

    def _certificate(self, file: Path) -> None:
        """Chain and key, signed by the lab's authority, there all at once."""
        authority, key, request = (
            self.directory / "authority", file.with_suffix(".newkey"), file.with_suffix(".request"))
        extensions = self.directory / "extensions"
        extensions.write_text("subjectAltName=DNS:tier.test,DNS:*.tier.test\n"
                              "basicConstraints=critical,CA:FALSE\n"
                              "extendedKeyUsage=serverAuth\n")
        self._tool("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                   "-nodes", "-subj", "/CN=tier.test", "-keyout", key, "-out", request)
        certificate = self._tool(
            "openssl", "x509", "-req", "-in", request, "-CA", f"{authority}.pem", "-CAkey",
            f"{authority}.key", "-CAcreateserial", "-days", "20", "-extfile", extensions)
        whole = file.with_suffix(".whole")
        whole.write_text(certificate + key.read_text())
        whole.chmod(0o600)
        key.unlink()
        request.unlink()
        whole.rename(file)

    def _networks(self) -> None:
        for name in self._namespaces():
            self._tool("ip", "netns", "add", name)
            self._tool("ip", "-n", name, "link", "set", "lo", "up")
        router = self._namespace("router")
        for place in PLACES:
            device = place.router_device
            self._tool("ip", "-n", router, "link", "add", device, "type", "veth", "peer",
                       "name", "eth0", "netns", self._namespace(place.name))
            self._tool("ip", "-n", router, "address", "add", f"{place.gateway}/24", "dev", device)
            self._tool("ip", "-n", router, "link", "set", device, "up")
            self._address(place)
        for setting in ["net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1"]:
            self.run("router", "sysctl", "-q", "-w", setting)
        for address in CLIENT_ADDRESSES[1:]:
            self.run("client", "ip", "address", "add", f"{address}/24", "dev", "eth0")
        for node in NODES:
            self.run(node.name, "ip", "address", "add", f"{SERVICE}/32", "dev", "lo")
            table = str(100 + node.network)
            self.run("router", "ip", "route", "add", "default", "via", node.address, "table", table)
            self.run("router", "ip", "rule", "add", "fwmark", str(node.network), "lookup", table)
        self.sticky(True)

    def _address(self, place: Place) -> None:
        self.run(place.name, "ip", "address", "add", f"{place.address}/24", "dev", "eth0")
        self.run(place.name, "ip", "link", "set", "eth0", "up")
        self.run(place.name, "ip", "route", "add", "default", "via", place.gateway)


def comparison(lab: Lab) -> list:
    """What compares the nodes, and where it is run."""
    nodes = ",".join(f"{node.address}:443" for node in NODES)
    return [CLIENT.name, lab.forebay, "certs", "check", "--nodes", nodes, "--names",
            ",".join(NAMES), "--roots", lab.directory / "authority.pem", "--days", "1", "--same"]
