"""Routing by BIRD 2."""

from pathlib import Path

from .layout import CLIENT, NODES, NODES_AS, ROUTER_AS, SERVICE, Place

_BFD = """protocol bfd {
  interface "*" { interval 100 ms; multiplier 3; };
}
"""


class Bird:
    programs = ["bird", "birdc"]
    kernel_protocol = "bird"

    def configure_router(self, directory: Path) -> None:
        (directory / "bird.conf").write_text(_router())

    def configure_node(self, directory: Path, node: Place) -> None:
        (directory / "bird.conf").write_text(_node(node))

    def commands(self, directory: Path) -> list[tuple[list, Path]]:
        socket = directory / "bird.ctl"
        command = ["bird", "-f", "-c", directory / "bird.conf", "-s", socket,
                   "-P", directory / "bird.pid"]
        return [(command, socket)]

    def announcement(self, directory: Path) -> list:
        return ["bird", directory / "bird.ctl", "service"]


def _router() -> str:
    neighbours = "".join(
        f"protocol bgp {node.name} {{\n"
        f"  local {node.gateway} as {ROUTER_AS};\n"
        f"  neighbor {node.address} as {NODES_AS};\n"
        "  hold time 9; keepalive time 3; connect retry time 1;\n"
        "  connect delay time 1; error wait time 1, 2;\n"
        "  bfd on;\n"
        f"  ipv4 {{ import filter {{ if net = {SERVICE}/32 then accept; reject; }};"
        " export none; };\n"
        "}\n"
        for node in NODES
    )
    return (
        f"router id {CLIENT.gateway};\n"
        "protocol device { scan time 1; }\n"
        f"{_BFD}"
        "protocol kernel { merge paths on;"
        " ipv4 { import none; export where source = RTS_BGP; }; }\n"
        f"{neighbours}"
    )


def _node(node: Place) -> str:
    return (
        f"router id {node.address};\n"
        "protocol device { scan time 1; }\n"
        f"{_BFD}"
        "# Enabled by announce-while-healthy, never by itself.\n"
        "protocol static service {\n"
        "  disabled;\n"
        "  ipv4;\n"
        f"  route {SERVICE}/32 blackhole;\n"
        "}\n"
        "protocol bgp edge {\n"
        f"  local {node.address} as {NODES_AS};\n"
        f"  neighbor {node.gateway} as {ROUTER_AS};\n"
        "  hold time 9; keepalive time 3; connect retry time 1;\n"
        "  connect delay time 1; error wait time 1, 2;\n"
        "  bfd on;\n"
        '  ipv4 { import none; export where proto = "service"; next hop self; };\n'
        "}\n"
    )
