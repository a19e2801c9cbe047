"""Real nginx and Caddy processes with TLS, configured by the files in `deploy/`.

Only ports, host names, certificates and paths of the shipped files are replaced.
"""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs import need
from tests.waiting import LIMIT_S, until

DEPLOY = Path(__file__).parents[3] / "deploy"
#: The path at which the files `path.conf` and `path.Caddyfile` serve.
PATH = "/images"
NGINX = """
daemon off;
worker_processes 1;
# Ignored unless the tests run as root: the worker must write to their folder.
user root;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/allaprima.conf;
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    http_port {http}
    https_port {https}
    default_bind 127.0.0.1
    local_certs
    skip_install_trust
    storage file_system {folder}/storage
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    #: Address of the server behind it, without a slash at the end.
    url: str
    #: Port on which nginx redirects plain HTTP.
    http_port: int


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nginx(name: str, folder: Path, upstream: int, port: int | None = None) -> Iterator[Proxy]:
    """Run nginx with `deploy/nginx/NAME.conf` in front of a port. port: its own port; default: a free one."""
    program = need("nginx", "is configured by deploy/nginx")
    http, https = free_port(), port or free_port()
    _make_certificate(folder)
    changes = {
        r"server 127\.0\.0\.1:8000;": f"server 127.0.0.1:{upstream};",
        r"listen 80;": f"listen 127.0.0.1:{http};",
        r"listen \[::\]:80;": f"listen 127.0.0.2:{http};",
        r"listen 443 ": f"listen 127.0.0.1:{https} ",
        r"listen \[::\]:443 ": f"listen 127.0.0.2:{https} ",
        r"\S+/fullchain\.pem": str(folder / "certificate.pem"),
        r"\S+/privkey\.pem": str(folder / "key.pem"),
        r"(images|www)\.example\.org": "localhost",
    }
    shipped = DEPLOY / "nginx" / f"{name}.conf"
    (folder / "allaprima.conf").write_text(_replaced(shipped, changes))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with _running(command, folder, https):
        yield Proxy(_url(name, https), http)


@contextmanager
def caddy(name: str, folder: Path, upstream: int) -> Iterator[Proxy]:
    """Run Caddy with `deploy/caddy/NAME.Caddyfile` in front of a port. It issues its own certificate."""
    program = need("caddy", "is configured by deploy/caddy")
    http, https = free_port(), free_port()
    changes = {r"127\.0\.0\.1:8000": f"127.0.0.1:{upstream}", r"(?m)^(images|www)\.example\.org": "localhost"}
    text = _replaced(DEPLOY / "caddy" / f"{name}.Caddyfile", changes)
    file = folder / "Caddyfile"
    file.write_text(CADDY.format(folder=folder, http=http, https=https) + text)
    command = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    with _running(command, folder, https):
        yield Proxy(_url(name, https), http)


def _url(name: str, port: int) -> str:
    return f"https://localhost:{port}{PATH if name == 'path' else ''}"


def _replaced(file: Path, changes: Mapping[str, str]) -> str:
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.lstrip().startswith("#"))
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, f"{file} has no {pattern}"
    return text


def _make_certificate(folder: Path) -> None:
    command = [
        need("openssl", "makes the certificate of nginx"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    log = folder / "proxy.log"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)

    def answers() -> bool | None:
        assert process.poll() is None, log.read_text()
        try:
            with (
                socket.create_connection(("127.0.0.1", port), LIMIT_S) as plain,
                trusting_all().wrap_socket(plain, server_hostname="localhost"),
            ):
                return True
        except OSError:
            return None

    try:
        until(answers, f"{command[0]} at port {port}")
        yield
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def trusting_all() -> ssl.SSLContext:
    """Return a TLS context that accepts any certificate; the proxies sign their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
