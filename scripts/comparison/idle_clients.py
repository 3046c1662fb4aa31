"""Idle TLS connections of one process: idle_clients.py PORT COUNT [plain].

Says `held` once all are established, and holds them until it is ended. A program of its own,
so that its descriptors are not the comparison's.
"""

import itertools
import signal
import socket
import ssl
import sys

#: Each address has its own 28,000 ports.
_SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")


def main() -> None:
    port, count, plain = int(sys.argv[1]), int(sys.argv[2]), "plain" in sys.argv[3:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    held = []
    for source in itertools.islice(itertools.cycle(_SOURCES), count):
        connection = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        held.append(connection if plain else context.wrap_socket(connection))
    print("held", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
