"""Routing by FRR 8: zebra, bgpd and bfdd."""

import shutil
from pathlib import Path

from .layout import CLIENT, NODES, NODES_AS, ROUTER_AS, SERVICE, Place

#: Where Debian has the daemons.
_DAEMONS = Path("/usr/lib/frr")

_BFD = """bfd
 profile fast
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
"""

#: Nobody takes a route from, or gives one to, a neighbour without a rule (RFC 8212).
_RULES = f"""ip prefix-list service seq 5 permit {SERVICE}/32
route-map service permit 10
 match ip address prefix-list service
route-map nothing deny 10
"""


class Frr:
    programs = ["vtysh", *(str(_DAEMONS / name) for name in ("zebra", "bgpd", "bfdd"))]
    kernel_protocol = "bgp"

    def configure_router(self, directory: Path) -> None:
        # Next hops are resilient-nexthops' to number.
        _write(directory, "no zebra nexthop kernel enable\n", _router())

    def configure_node(self, directory: Path, node: Place) -> None:
        _write(directory, "", _node(node))

    def commands(self, directory: Path) -> list[tuple[list, Path]]:
        own = directory / "frr"
        zebra = own / "zserv.api"

        def daemon(name: str, *more) -> list:
            return [_DAEMONS / name, "-f", own / f"{name}.conf", "-i", own / f"{name}.pid",
                    "-z", zebra, "--vty_socket", own, "-P", "0", *more]

        # Who does not find zebra tries again after ten seconds.
        return [
            (daemon("zebra"), zebra),
            (daemon("bfdd", "--bfdctl", own / "bfdd.sock"), own / "bfdd.vty"),
            (daemon("bgpd"), own / "bgpd.vty"),
        ]

    def announcement(self, directory: Path) -> list:
        return ["frr", directory / "frr", NODES_AS, f"{SERVICE}/32"]


def _write(directory: Path, zebra: str, bgp: str) -> None:
    own = directory / "frr"
    own.mkdir()
    # The daemons give up being root.
    shutil.chown(own, "frr", "frr")
    for name, text in [("zebra", zebra), ("bfdd", _BFD), ("bgpd", bgp + _RULES)]:
        (own / f"{name}.conf").write_text(text)


def _router() -> str:
    neighbours = "".join(f" neighbor {node.address} peer-group nodes\n" for node in NODES)
    return (
        f"router bgp {ROUTER_AS}\n"
        f" bgp router-id {CLIENT.gateway}\n"
        " timers bgp 3 9\n"
        " neighbor nodes peer-group\n"
        f" neighbor nodes remote-as {NODES_AS}\n"
        " neighbor nodes bfd profile fast\n"
        " neighbor nodes timers connect 1\n"
        f"{neighbours}"
        " address-family ipv4 unicast\n"
        "  neighbor nodes route-map service in\n"
        "  neighbor nodes route-map nothing out\n"
        "  maximum-paths 64\n"
    )


def _node(node: Place) -> str:
    return (
        f"router bgp {NODES_AS}\n"
        f" bgp router-id {node.address}\n"
        " timers bgp 3 9\n"
        f" neighbor {node.gateway} remote-as {ROUTER_AS}\n"
        f" neighbor {node.gateway} bfd profile fast\n"
        f" neighbor {node.gateway} timers connect 1\n"
        f" neighbor {node.gateway} advertisement-interval 0\n"
        " address-family ipv4 unicast\n"
        f"  neighbor {node.gateway} route-map nothing in\n"
        f"  neighbor {node.gateway} route-map service out\n"
    )
