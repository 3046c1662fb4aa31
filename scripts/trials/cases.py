"""What is compared with what, and under which load."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """A load of forebay-load."""

    key: str
    title: str
    options: tuple[str, ...]
    #: The server's cost in its report, and the unit.
    cost: str = "cpu_us_per_operation"
    unit: str = "µs"
    #: Whether a latency of it means anything: not with as many as fit.
    latency: bool = True


_REQUEST = ("requests", "--response-bytes", "1024", "--connections")
_BULK = ("bulk", "--bytes", "20000000", "--connections", "4", "--direction")

WORKS = {
    work.key: work
    for work in (
        Work("one", "1 KiB requests, 1 connection", (*_REQUEST, "1")),
        Work("eight", "1 KiB requests, 8 connections", (*_REQUEST, "8")),
        Work("fifty", "1 KiB requests, 50 connections", (*_REQUEST, "50")),
        Work("down", "download, 4 streams", (*_BULK, "down"), "cpu_ms_per_gb", "ms/GB", False),
        Work("up", "upload, 4 streams", (*_BULK, "up"), "cpu_ms_per_gb", "ms/GB", False),
        Work("full", "full handshakes, 32 at once", ("handshakes", "--connections", "32")),
    )
}


@dataclass(frozen=True)
class Variant:
    name: str
    engine: dict[str, str] = field(default_factory=dict)
    handshake: dict[str, str] = field(default_factory=dict)
    #: For builds with the patch of what was tried.
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    #: The first one is what the others are compared with.
    variants: tuple[Variant, ...]
    works: tuple[str, ...]
    #: Engines on these of the machine's CPUs; workers on the load's.
    engine_cpus: tuple[int, ...] = (0,)
    load_cpus: tuple[int, ...] = (1,)
    #: The client in a network namespace of its own, behind a veth pair with NAPI.
    network: bool = False


def _engine(key: str, *values: str) -> tuple[Variant, ...]:
    return tuple(Variant(f"{key} = {value}", {key: value}) for value in values)


_RELAY = ("one", "eight", "fifty")

SWITCHES = (
    Case("noise", "the default against itself", (Variant("default"), Variant("again")),
         ("one", "eight", "fifty", "down", "up", "full")),
    Case("spin", "`engine.spin`",
         _engine("spin", '"off"', '"20us"', '"100us"', '"1ms"', '"always"'), _RELAY),
    Case("huge_pages", "`engine.huge_pages`",
         _engine("huge_pages", '"off"', '"auto"', '"on"'), ("fifty", "down", "up")),
    Case("lock_memory", "`engine.lock_memory`",
         _engine("lock_memory", '"off"', '"auto"'), ("one", "fifty", "down")),
    Case("napi", "`engine.napi_busy_poll`, over veth",
         _engine("napi_busy_poll", '"off"', '"50us"', '"200us"'), _RELAY, network=True),
    Case("steer", "`engine.steer`, an engine and a client on each CPU",
         _engine("steer", '"hash"', '"cpu"'), ("eight", "fifty", "full"),
         engine_cpus=(0, 1), load_cpus=(0, 1)),
    Case("large_buffers", "`engine.large_buffers`",
         _engine("large_buffers", "32", "0", "4"), ("fifty", "down", "up")),
    Case("inline", "`handshake.inline`",
         (Variant("offloaded"), Variant("inline", handshake={"inline": "true"})), ("full", "fifty")),
)


def _tried(key: str, title: str, works: tuple[str, ...], *variants: tuple[str, str]) -> Case:
    """Variants of a patched build, by environment variables: "NAME=VALUE NAME=VALUE"."""
    made = [Variant("as it is")]
    for name, settings in variants:
        pairs = (setting.split("=", 1) for setting in settings.split())
        made.append(Variant(name, environment=dict(pairs)))
    return Case(key, title, tuple(made), works)


_ALL = ("one", "eight", "fifty", "down", "up", "full")

TRIED = (
    _tried("head", "queue head published before the wait", ("one", "fifty", "full"),
           ("as it was", "TRY_LATE_HEAD=1")),
    _tried("batch", "completions for each turn", ("fifty", "full"),
           ("16", "TRY_BATCH=16"), ("1024", "TRY_BATCH=1024")),
    _tried("min_wait", "`min_wait`: wait for more completions", _ALL,
           ("8 within 20 µs", "TRY_MIN_WAIT=20 TRY_WANT=8"),
           ("16 within 50 µs", "TRY_MIN_WAIT=50 TRY_WANT=16"),
           ("as many as come anyway, within 20 µs",
            "TRY_MIN_WAIT=20 TRY_WANT=16 TRY_ADAPT=150 TRY_GATE=1")),
    _tried("multishot", "multishot receive of whole records", ("one", "eight", "fifty"),
           ("multishot", "TRY_MULTISHOT=1")),
    _tried("send_zc", "`SEND_ZC`", ("down", "up"),
           ("from 16 KiB", "TRY_SEND_ZC=16384"), ("from 60 KiB", "TRY_SEND_ZC=60000")),
    _tried("registered", "registered descriptors", _ALL, ("registered", "TRY_REGISTERED=1")),
    _tried("receive", "most bytes of a receive from the pool", ("down", "up"),
           ("4 KiB", "TRY_RECEIVE=4096"), ("8 KiB", "TRY_RECEIVE=8192")),
    _tried("poll_first", "poll before a receive", ("one", "fifty", "down", "up"),
           ("never", "TRY_POLL_FIRST=0"), ("always", "TRY_POLL_FIRST=1")),
    _tried("provided", "buffers in the kernel's ring, 32", ("fifty", "up"),
           ("8", "TRY_PROVIDED=8"), ("512", "TRY_PROVIDED=512")),
    _tried("ring_fd", "registered ring descriptor", ("one", "fifty"), ("without", "TRY_RING_FD=0")),
)

ALL = {case.key: case for case in SWITCHES + TRIED}
