"""What is done to a server, and which figures come of it.

Each measurement has a server to itself that was started for it, and gives values for some
of the figures in `figures`. The loads are the same for every server.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from .figures import LATENCY_QUANTILES
from .load import Load
from .processes import Failed, Unsupported

#: Handshakes at once when their cost is measured, as the reference figures were taken.
HANDSHAKES_AT_ONCE = 32

#: The same when the capacity for a storm is measured: enough that the server never waits.
CAPACITY_AT_ONCE = 64

#: In a storm: established connections, requests a second on all of them together, and how
#: long a new client waits for its handshake.
STORM_ESTABLISHED = 32
STORM_REQUEST_RATE = 1000
STORM_PATIENCE = "1s"

#: Where many clients come from: each address has its own 28,000 ports.
SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")

#: Streams at once, and how much each takes or gives before the next.
STREAMS = 4
STREAM_BYTES = 20_000_000

#: Rounds with one worker and with two in one sample.
WORKERS_ROUNDS = 3

#: Connections that ask, and for how much.
ASKING_CONNECTIONS = 50
REQUEST_BYTES = 1024

#: Requests a second when latency is measured: every server can do more.
LATENCY_RATE = 2000

#: Idle connections that memory is not counted from: what the first ones make a server take
#: is no cost of a connection. Then the time until memory is read.
BASELINE_CONNECTIONS = 100
SETTLE_SECONDS = 1.0

_REQUEST = ("--request-bytes", str(REQUEST_BYTES), "--response-bytes", str(REQUEST_BYTES))

HYBRID = "X25519MLKEM768"


@dataclass(frozen=True)
class Settings:
    """How long and how much."""

    seconds: float
    warm_up: float
    idle_connections: int


@dataclass(frozen=True)
class Taken:
    """The values of one sample, and the reports that they come from."""

    values: dict[str, float]
    reports: dict[str, dict]


@dataclass(frozen=True)
class Measurement:
    key: str
    take: Callable[[Load, Settings], Taken]
    #: Whether it makes sense without TLS too.
    for_plain: bool = False
    #: Whether the bare loop of `benches/floor` is kept up to date for it.
    for_floor: bool = False
    #: On one CPU that is the server's own, or as an operator would run it, on all.
    one_core: bool = True


def _cost(figure: str, report: dict, per: str = "cpu_us_per_operation") -> Taken:
    return Taken({figure: _server(report)[per]}, {"load": report})


def _server(report: dict) -> dict:
    try:
        return report["server"]
    except KeyError:
        raise Failed("forebay-load did not report the server's CPU time") from None


def _handshakes(
    figure: str, *options: str, group: str = "X25519", rsa: bool = False
) -> Callable[[Load, Settings], Taken]:
    def take(load: Load, settings: Settings) -> Taken:
        if rsa and load.server.rsa_port is None:
            raise Unsupported("no RSA port was given")
        report = load.measure(
            "handshakes",
            *("--connections", str(HANDSHAKES_AT_ONCE)),
            *_tls(load, group),
            *options,
            port=load.server.rsa_port if rsa else None,
            seconds=settings.seconds,
            warm_up=settings.warm_up,
        )
        return _cost(figure, report)

    return take


def _hybrid(load: Load, settings: Settings) -> Taken:
    if load.server.name != "forebay":
        try:
            load.measure("handshakes", "--group", HYBRID, "--operations", "1", seconds=1)
        except Failed:
            raise Unsupported(f"it does not shake hands with {HYBRID} alone") from None
    return _handshakes("full_ecdsa_hybrid", group=HYBRID)(load, settings)


def _bulk(figure: str, direction: str) -> Callable[[Load, Settings], Taken]:
    def take(load: Load, settings: Settings) -> Taken:
        report = load.measure(
            "bulk",
            *("--direction", direction, "--bytes", str(STREAM_BYTES)),
            *("--connections", str(STREAMS)),
            *_tls(load),
            seconds=settings.seconds,
            warm_up=settings.warm_up,
        )
        return _cost(figure, report, "cpu_ms_per_gb")

    return take


def _request(load: Load, settings: Settings, *options: str) -> dict:
    return load.measure(
        "requests",
        *_REQUEST,
        *("--connections", str(ASKING_CONNECTIONS)),
        *_tls(load),
        *options,
        seconds=settings.seconds,
        warm_up=settings.warm_up,
    )


def _requests(load: Load, settings: Settings) -> Taken:
    return _cost("request", _request(load, settings))


def _tls(load: Load, group: str = "X25519") -> tuple[str, ...]:
    return () if load.server.plain else ("--tls", "1.3", "--group", group)


def _idle(load: Load, settings: Settings) -> Taken:
    alone = _request(load, settings)
    count = settings.idle_connections
    with load.holding_idle(BASELINE_CONNECTIONS):
        time.sleep(SETTLE_SECONDS)
        before = load.memory_bytes()
        with load.holding_idle(count):
            time.sleep(SETTLE_SECONDS)
            memory = load.memory_bytes() - before
            beside = _request(load, settings)
    costs = [_server(report)["cpu_us_per_operation"] for report in (alone, beside)]
    return Taken(
        {
            "idle_connections": count,
            "idle_memory": memory / count / 1024,
            "request_alone": costs[0],
            "request_beside_idle": costs[1],
            "request_beside_idle_ratio": costs[1] / costs[0],
        },
        {"alone": alone, "beside_idle": beside},
    )


def _workers(load: Load, settings: Settings) -> Taken:
    if load.server.name != "forebay":
        raise Unsupported("it has no handshake workers")
    report = load.scaling(WORKERS_ROUNDS, settings.seconds / 2)
    one, two = report["one"], report["two"]
    return Taken(
        {
            "workers_one": one["steps_per_second"],
            "workers_two": two["steps_per_second"],
            "workers_ratio": two["steps_per_second"] / one["steps_per_second"],
            "workers_cost_ratio": two["cpu_us_per_step"] / one["cpu_us_per_step"],
        },
        {"scaling": report},
    )


#: Of new clients, by forebay-load's names: never reached the server.
_NEVER_SENT = ("not started", "no local port", "no descriptor")


def _sources() -> tuple[str, ...]:
    return tuple(word for address in SOURCES for word in ("--source", address))


def _storm(load: Load, settings: Settings) -> Taken:
    if not load.knows("mixed"):
        raise Unsupported("this forebay-load makes no storms")
    port = load.server.rsa_port or load.server.ecdsa_port
    capacity = load.measure(
        "handshakes",
        *("--connections", str(CAPACITY_AT_ONCE)),
        *_tls(load),
        port=port,
        seconds=settings.seconds,
        warm_up=settings.warm_up,
    )
    handshakes_per_second = capacity["rate_per_second"]
    once, tenfold = (
        load.measure(
            "mixed",
            *_REQUEST,
            *("--connections", str(STORM_ESTABLISHED), "--rate", str(STORM_REQUEST_RATE)),
            *("--storm-rate", f"{times * handshakes_per_second:.0f}"),
            *("--patience", STORM_PATIENCE),
            *_sources(),
            *_tls(load),
            port=port,
            seconds=settings.seconds,
            warm_up=settings.warm_up,
        )
        for times in (1, 10)
    )
    with load.busy_cpus():
        busy = load.measure(
            "requests",
            *_REQUEST,
            *("--connections", str(STORM_ESTABLISHED), "--rate", str(STORM_REQUEST_RATE)),
            *_tls(load),
            port=port,
            seconds=settings.seconds,
            warm_up=settings.warm_up,
        )
    p99_busy = busy["latency_us"]["p99"]
    goodput = [report["storm"]["goodput_per_second"] for report in (once, tenfold)]
    storm = tenfold["storm"]
    # Those that were due and could not be sent are the load's failure, not the server's.
    kept_back = sum(storm["storm_failed"].get(cause, 0) for cause in _NEVER_SENT)
    came = (storm["offered"] - kept_back) / storm["duration_seconds"]
    return Taken(
        {
            "storm_capacity": handshakes_per_second,
            "storm_p99_quiet": tenfold["quiet"]["latency_us"]["p99"],
            "storm_p99_busy": p99_busy,
            "storm_p99_1": once["storm"]["latency_us"]["p99"],
            "storm_p99_10": tenfold["storm"]["latency_us"]["p99"],
            "storm_p99_ratio": tenfold["ratio_p99"],
            "storm_p99_busy_ratio": storm["latency_us"]["p99"] / p99_busy,
            "storm_offered_10": came / handshakes_per_second,
            "storm_goodput_1": goodput[0],
            "storm_goodput_10": goodput[1],
            "storm_goodput_ratio": goodput[1] / goodput[0] if goodput[0] else 0.0,
        },
        {"capacity": capacity, "busy": busy, "once": once, "tenfold": tenfold},
    )


def _latency(load: Load, settings: Settings) -> Taken:
    report = _request(load, settings, "--rate", str(LATENCY_RATE))
    return Taken(
        {f"latency_{key}": report["latency_us"][key] for key in LATENCY_QUANTILES},
        {"load": report},
    )


#: In the order of a run.
ALL = {
    measurement.key: measurement
    for measurement in (
        Measurement("full_ecdsa", _handshakes("full_ecdsa"), for_plain=True),
        Measurement("full_ecdsa_hybrid", _hybrid),
        Measurement(
            "full_ecdsa_aes128",
            _handshakes("full_ecdsa_aes128", "--suite", "TLS_AES_128_GCM_SHA256"),
        ),
        Measurement("full_rsa", _handshakes("full_rsa", rsa=True)),
        Measurement("resumed", _handshakes("resumed", "--resumed")),
        Measurement(
            "full_ecdsa_request",
            _handshakes("full_ecdsa_request", "--response-bytes", str(REQUEST_BYTES)),
            for_plain=True,
        ),
        Measurement("bulk_down", _bulk("bulk_down", "down"), for_plain=True, for_floor=True),
        Measurement("bulk_up", _bulk("bulk_up", "up"), for_plain=True, for_floor=True),
        Measurement("request", _requests, for_plain=True, for_floor=True),
        Measurement("idle", _idle, for_plain=True),
        Measurement("workers", _workers),
        Measurement("storm", _storm),
        Measurement("latency", _latency, for_plain=True, one_core=False),
    )
}
