"""What each program reads, but for routing. docs/TIER.md shows the same for real machines."""

from pathlib import Path

from .layout import (
    ADMIN, APP_PORT, APPLICATIONS, BALANCERS, CLIENT, L7_PORT, NODES, PORT, SERVICE, Place,
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
