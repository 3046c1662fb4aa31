"""The backend of all servers: an nginx that answers GET and POST of /bytes/N with N bytes."""

from .processes import Processes
from .scene import Scene
from .servers import find


def start(processes: Processes, scene: Scene, sizes: list[int], upload_bytes: int) -> None:
    """Starts it on the last of the load's CPUs.

    Every size that is asked for must be among `sizes`. Uploads go to /bytes/0.
    """
    site = scene.directory / "site"
    (site / "bytes").mkdir(parents=True)
    site.chmod(0o755)
    for size in sizes:
        (site / "bytes" / str(size)).write_bytes(bytes(size))
    connections = 2 * scene.idle_connections + 1000
    file = scene.directory / "backend.conf"
    file.write_text(f"""
daemon off;
pid {scene.directory}/backend.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600;
  sendfile on;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{scene.backend_port} backlog=4096;
    root {site};
    # A file takes no POST; what little it carries is thrown away, and the file is the answer.
    error_page 405 =200 $uri;
    # Read to its end before it is answered, as a server that wants the bytes would.
    location = /bytes/0 {{
      client_body_buffer_size {upload_bytes + 4096};
      proxy_set_body "";
      proxy_pass http://127.0.0.1:{scene.backend_port}/thanks;
    }}
    location = /thanks {{ return 200; }}
  }}
}}
""")
    command = [find("nginx") or "nginx", "-e", "stderr", "-c", str(file)]
    processes.start(command, scene.load_cpus[-1:], scene.backend_port)
