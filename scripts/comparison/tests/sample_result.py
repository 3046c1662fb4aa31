"""A small result, made up, for tests of what is made from results."""

from comparison.result import FORMAT, Result

#: Medians are the middle values; the hybrid group is forebay's alone.
_VALUES = {
    "forebay": {
        "full_ecdsa": [80.0, 78.0, 90.0],
        "full_ecdsa_hybrid": [100.0, 101.0, 99.0],
        "bulk_down": [800.0, 820.0, 790.0],
        "idle_memory": [1.5, 1.4, 1.6],
        "storm_p99_quiet": [200.0, 210.0, 190.0],
        "storm_p99_1": [300.0, 310.0, 290.0],
        "storm_p99_10": [400.0, 420.0, 380.0],
        "storm_p99_ratio": [2.0, 2.1, 1.9],
        "storm_goodput_ratio": [0.95, 0.96, 0.94],
        "latency_p50": [90.0, 91.0, 89.0],
        "latency_p90": [120.0, 121.0, 119.0],
        "latency_p99": [300.0, 301.0, 299.0],
        "latency_p99_9": [800.0, 801.0, 799.0],
        "latency_maximum": [2500.0, 2600.0, 2400.0],
    },
    "haproxy": {
        "full_ecdsa": [240.0, 230.0, 250.0],
        "bulk_down": [1200.0, 1210.0, 1190.0],
        "idle_memory": [17.0, 17.1, 16.9],
        "storm_p99_quiet": [200.0, 210.0, 190.0],
        "storm_p99_1": [9000.0, 9100.0, 8900.0],
        "storm_p99_10": [40000.0, 42000.0, 38000.0],
        "storm_p99_ratio": [200.0, 210.0, 190.0],
        "storm_goodput_ratio": [0.1, 0.2, 0.0],
    },
    "plain": {"bulk_down": [780.0, 790.0, 770.0]},
}

_SERVERS = [
    {"name": "forebay", "title": "forebay", "version": "0.1.0", "plain": False},
    {"name": "haproxy", "title": "HAProxy", "version": "2.6.12", "plain": False},
    {"name": "plain", "title": "HAProxy, plain TCP", "version": "", "plain": True},
]


def sample_result(**changes) -> Result:
    """`changes` replace parts of the file at its top level."""
    samples = [
        {
            "measurement": measurement,
            "server": server,
            "round": number + 1,
            "values": {
                key: values[number]
                for key, values in figures.items()
                if key.startswith("storm") == (measurement == "storm")
            },
            "reports": {},
        }
        for server, figures in _VALUES.items()
        for number in range(3)
        for measurement in ("storm", "all others")
    ]
    data = {
        "format": FORMAT,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "modified": False,
        "date": "2026-11-25T22:40:10Z",
        "command": "scripts/compare",
        "seconds": 1500,
        "load_before": 0.1,
        "load_after": 1.9,
        "stolen_share": 0.012,
        "machine": {
            "processor": "A <Processor> & more",
            "cpus": 2,
            "memory_gib": 16,
            "kernel": "6.18.1",
            "architecture": "x86_64",
            "virtual": True,
            "mitigations": {"spectre_v1": "Mitigation: barriers"},
            "governor": None,
            "descriptor_limit": 20000,
            "somaxconn": 4096,
        },
        "software": {"openssl": "OpenSSL 3.0.19"},
        "settings": {
            "rounds": 3,
            "seconds": 4.0,
            "warm_up": 1.0,
            "idle_connections": 9600,
            "server_cpu": 0,
            "load_cpus": [1],
        },
        "servers": _SERVERS,
        "absent": {"hitch": "hitch is not installed"},
        "samples": samples,
    }
    return Result(data | changes, "sample.json")
