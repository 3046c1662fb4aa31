"""Clients of the service, in the client's namespace, as threads of this program."""

import contextlib
import ctypes
import os
import socket
import ssl
import threading
import time

from .lab import NETNS, Lab
from .layout import CLIENT, CLIENT_ADDRESSES, NAMES, PORT, SERVICE

_CLONE_NEWNET = 0x4000_0000  # setns(2)
TIMEOUT_SECONDS = 5.0


def enter(lab: Lab) -> None:
    """Moves this thread into the client's namespace: its sockets are made there."""
    with (NETNS / f"{lab.prefix}-{CLIENT.name}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"setns: {os.strerror(error)}")


def context(lab: Lab, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(lab.directory / "authority.pem"))
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


class Connection:
    """A TLS connection for requests one after the other."""

    def __init__(self, tls: ssl.SSLContext, *, name: str = NAMES[0], host: str = SERVICE,
                 source: str = CLIENT_ADDRESSES[0], session=None, timeout: float = TIMEOUT_SECONDS):
        plain = socket.create_connection((host, PORT), timeout, source_address=(source, 0))
        try:
            self._socket = tls.wrap_socket(plain, server_hostname=name, session=session)
        except BaseException:
            plain.close()
            raise
        self.name = name
        self.local = self._socket.getsockname()[:2]
        self.resumed = self._socket.session_reused

    def request(self, path: str) -> str:
        """The body of a complete 200 answer."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.name}\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, body = data.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").lower().split("\r\n")
        if " 200 " not in lines[0]:
            raise OSError(f"answered {lines[0]}")
        lengths = [line.split(":")[1] for line in lines if line.startswith("content-length:")]
        if len(lengths) != 1:
            raise OSError("the answer has no length")
        while len(body) < int(lengths[0]):
            body += self._more()
        return body.decode()

    @property
    def session(self):
        return self._socket.session

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        data = self._socket.recv(4096)
        if not data:
            raise OSError("the connection ended before the answer was complete")
        return data


class Traffic:
    """Requests all the while: ten on each connection, then another. Nothing is tried again."""

    THREADS, REQUESTS, PAUSE_SECONDS = 6, 10, 0.02

    def __init__(self, lab: Lab):
        self.done = 0
        self.failures: list[str] = []
        self._lab = lab
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(self.THREADS)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self, requests: int = 60) -> None:
        """Waits until so many more have been answered, or one failed."""
        before = self.done
        self._lab.wait_until("requests are answered",
                             lambda: self.done >= before + requests or self.failures)

    def _run(self, number: int) -> None:
        enter(self._lab)
        tls = context(self._lab)
        while not self._end.is_set():
            try:
                with contextlib.closing(
                    Connection(
                        tls, source=CLIENT_ADDRESSES[number], name=NAMES[number % len(NAMES)]
                    )
                ) as connection:
                    for _ in range(self.REQUESTS):
                        connection.request("/traffic")
                        with self._lock:
                            self.done += 1
                        time.sleep(self.PAUSE_SECONDS)
            except OSError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                time.sleep(self.PAUSE_SECONDS)
