"""What is measured: the name, the unit and the meaning of every figure.

Knows nothing of how a figure is taken; `measurements` does.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One quantity of one server. Its values in a result file are plain numbers in `unit`."""

    key: str
    title: str
    unit: str
    digits: int = 1
    #: Whether a larger value is the better one.
    more_is_better: bool = False

    def text(self, value: float | None) -> str:
        """The value as tables show it, without its unit."""
        return "" if value is None else f"{value:,.{self.digits}f}"


#: CPU time of the server for one operation, all its threads, user and system.
COSTS = (
    Figure("full_ecdsa", "full connection, ECDSA P-256, X25519", "µs"),
    Figure("full_ecdsa_hybrid", "full connection, ECDSA P-256, X25519MLKEM768", "µs"),
    Figure("full_rsa", "full connection, RSA-2048, X25519", "µs"),
    Figure("resumed", "resumed connection, X25519", "µs"),
    Figure("full_ecdsa_request", "full connection, ECDSA P-256, one 1 KiB request", "µs"),
    Figure("bulk_down", "download, 1 GB", "ms", 0),
    Figure("bulk_up", "upload, 1 GB", "ms", 0),
    Figure("request", "1 KiB request and answer, kept alive", "µs", 2),
)

#: The same where servers have no choice: by default not all prefer the same suite.
COSTS_OF_ONE_SUITE = (
    Figure("full_ecdsa_aes128", "full connection, ECDSA P-256, X25519, AES-128 only", "µs"),
)

IDLE = (
    Figure("idle_memory", "memory of an idle connection (PSS)", "KiB"),
    Figure("request_alone", "1 KiB request, nothing idle beside it", "µs", 2),
    Figure("request_beside_idle", "1 KiB request, idle connections beside it", "µs", 2),
    Figure("request_beside_idle_ratio", "1 KiB request beside idle connections / alone", "×", 3),
    Figure("idle_connections", "idle connections", "", 0, more_is_better=True),
)

#: One handshake worker and two, first steps of full handshakes, nothing else to do.
WORKERS = (
    Figure("workers_one", "handshake steps a second, 1 worker", "1/s", 0, more_is_better=True),
    Figure("workers_two", "handshake steps a second, 2 workers", "1/s", 0, more_is_better=True),
    Figure(
        "workers_ratio", "handshake throughput, 2 workers / 1", "×", 2, more_is_better=True
    ),
    Figure("workers_cost_ratio", "CPU time of a handshake step, 2 workers / 1", "×", 3),
)

STORM = (
    Figure("storm_capacity", "handshakes a second, 64 at once", "1/s", 0, more_is_better=True),
    Figure("storm_p99_quiet", "established, p99 without a storm", "µs", 0),
    Figure("storm_p99_busy", "the same, on CPUs that idle work keeps busy", "µs", 0),
    Figure("storm_p99_1", "established, p99 at 1 × the capacity", "µs", 0),
    Figure("storm_p99_10", "established, p99 at 10 × the capacity", "µs", 0),
    Figure("storm_p99_ratio", "established connections' p99, 10 × storm / quiet", "×"),
    Figure("storm_p99_busy_ratio", "established connections' p99, 10 × storm / busy CPUs", "×"),
    Figure("storm_offered_10", "new clients that came at 10 ×, of the capacity", "×"),
    Figure("storm_goodput_1", "handshakes completed in time at 1 ×", "1/s", 0, more_is_better=True),
    Figure(
        "storm_goodput_10", "handshakes completed in time at 10 ×", "1/s", 0, more_is_better=True
    ),
    Figure("storm_goodput_ratio", "goodput of handshakes, 10 × / 1 ×", "×", 2, more_is_better=True),
)

#: The quantiles of a request's latency, by the name that forebay-load gives them.
LATENCY_QUANTILES = {
    "p50": "50 %",
    "p90": "90 %",
    "p99": "99 %",
    "p99_9": "99.9 %",
    "maximum": "maximum",
}

LATENCY = tuple(
    Figure(f"latency_{key}", f"1 KiB request, {title}", "µs", 0)
    for key, title in LATENCY_QUANTILES.items()
)

ALL = {figure.key: figure for figure in COSTS + COSTS_OF_ONE_SUITE + IDLE + WORKERS + STORM + LATENCY}
