"""What each program reads. docs/TIER.md shows the same for real machines."""

from pathlib import Path

from .layout import (
    ADMIN, APP_PORT, APPLICATIONS, BALANCERS, CLIENT, L7_PORT, NODES, NODES_AS, PORT,
    ROUTER_AS, SERVICE, Place,
)

_BFD = """protocol bfd {
  interface "*" { interval 100 ms; multiplier 3; };
}
"""


def router_bird() -> str:
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


def node_bird(node: Place) -> str:
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


def forebay(certificates: Path, secrets: Path) -> str:
    backends = ", ".join(f'"{place.address}:{L7_PORT}"' for place in BALANCERS)
    return f"""[[listener]]
name = "tier"
address = "0.0.0.0:{PORT}"
certificates = ["{certificates}"]
alpn = ["http/1.1"]
pool = "l7"

[[pool]]
name = "l7"
backends = [{backends}]
proxy_protocol = "v2"

[engine]
engines = 1
max_connections = 512

[handshake]
workers = 1
calibrate = false

[timeouts]
drain_notice = "1s"
drain = "20s"

[session]
secrets = "{secrets}"

[admin]
address = "{ADMIN}"
"""


def haproxy(place: Place) -> str:
    servers = "".join(
        f"  server {app.name} {app.address}:{APP_PORT}\n" for app in APPLICATIONS
    )
    return f"""defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend from_forebay
  bind {place.address}:{L7_PORT} accept-proxy
  http-request set-header X-Client %[src]:%[src_port]
  http-request set-header X-Server-Name %[fc_pp_authority]
  default_backend applications
backend applications
  balance roundrobin
{servers}"""


def nginx(directory: Path, place: Place) -> str:
    return f"""daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format seen '$http_x_client $http_x_server_name $request_uri';
  access_log {directory}/access.log seen;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen {place.address}:{APP_PORT};
    location / {{ return 200 "{place.name}\\n"; }}
  }}
}}
"""


def sticky_rules() -> str:
    """Flows keep the node that they began with, whatever the routes say since."""
    learn = "".join(
        f'    oifname "{node.router_device}" ct state new ct mark set {node.network}\n'
        for node in NODES
    )
    return f"""table ip tier {{
  chain known {{
    type filter hook prerouting priority mangle;
    iifname "{CLIENT.router_device}" ip daddr {SERVICE} ct state established meta mark set ct mark
  }}
  chain learn {{
    type filter hook postrouting priority mangle;
{learn}  }}
}}
"""
