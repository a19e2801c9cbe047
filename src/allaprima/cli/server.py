"""Serves the API on a TCP socket and the operator's API on a Unix socket, in one event loop."""

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

import uvicorn
from rich.console import Console
from starlette.types import ASGIApp
from uvicorn.loops.auto import auto_loop_factory

from allaprima.api.app import create_app
from allaprima.api.operator import create_operator_app
from allaprima.bootstrap.service import open_service
from allaprima.cli.connections import BoundedConnection, ConnectionBounds, largest_number_of_connections
from allaprima.cli.logs import configure_logs
from allaprima.cli.operator_socket import operator_listener, shared_operator_listener
from allaprima.cli.playground import Playground
from allaprima.cli.traces import exported_traces
from allaprima.domain.addresses import is_loopback_name
from allaprima.domain.database_url import place_of
from allaprima.domain.ports import Engine
from allaprima.engine.build import build_engine
from allaprima.errors import SettingsError, StoreError
from allaprima.service.app import Service
from allaprima.settings import ServerSettings, Settings, StoreSettings

#: Seconds from the first signal until unfinished jobs are requeued.
DRAIN_AFTER_S = 18
#: Seconds from the first signal until open connections are closed.
SHUTDOWN_TIMEOUT_S = 20
#: Seconds for which idle connections stay open while the server stops: a client may have sent a request already.
IDLE_GRACE_S = 1.0
BACKLOG = 2048
#: Seconds until the server closes an idle connection. Clients close theirs earlier, so none is closed during a request.
KEEP_ALIVE_S = 75
#: Seconds after which a Python thread releases the interpreter's lock to a waiting thread.
SWITCH_INTERVAL_S = 0.0005
_NO_SOCKET = (
    "the server can't bind a Unix socket, so `allaprima keys` and `allaprima accounts` do not work while it runs"
)
_NO_SHARED_SOCKET = (
    "the data folder's socket is another server's, or can't be bound, so `allaprima open` and `allaprima ps` do not "
    "reach this server"
)


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers; `_serve` handles signals for two servers."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no connection, answer the requests that were sent, and close each connection after its answer."""
        for server in self.servers:
            server.close()
        # The running exchanges share this list. A client that reads the header sends no further request.
        self.server_state.default_headers.append((b"connection", b"close"))
        ends = time.monotonic() + IDLE_GRACE_S
        while self.server_state.connections and time.monotonic() < ends and not self.force_exit:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with nullcontext():
            yield


def run(settings: Settings, console: Console, *, opens_browser: bool = False) -> None:
    """Serve until the process receives a signal. Raises the `Error` that prevents the start or ends the server.

    opens_browser: whether to open the playground in a browser when the models are loaded.
    """
    configure_logs(settings.server.log_format)
    # The engine's thread holds the interpreter's lock between two kernels. A response passes between threads a dozen
    # times and would wait for the lock each time, by default 5 ms.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    BoundedConnection.bounds = ConnectionBounds(
        max_connections=largest_number_of_connections(),
        max_per_address=settings.server.max_connections_per_address,
        trusted_proxies=settings.server.trusted_proxies,
        head_s=settings.server.receive_s,
    )
    engine = build_engine(settings.engine)
    listener = _bind(settings.server)
    traces, runner = exported_traces(settings.server.traces_endpoint), asyncio.Runner(loop_factory=auto_loop_factory())
    with listener, traces, runner:
        runner.run(_serve(settings, engine, listener, console, opens_browser=opens_browser))


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The explicit protocol makes asyncio set TCP_NODELAY, which saves 40 ms per response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # Clients can connect as soon as the address is printed.
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise SettingsError(f"can't listen on {where}: {exc.strerror}; change it with --port or --host") from exc
    address = str(listener.getsockname()[0])
    if not settings.requires_key and not is_loopback_name(f"[{address}]" if ":" in address else address):
        listener.close()
        raise SettingsError(f"--no-auth is allowed on a loopback address alone; {settings.host} is {address}")
    return listener


async def _serve(
    settings: Settings, engine: Engine, listener: socket.socket, console: Console, *, opens_browser: bool
) -> None:
    async with open_service(settings, engine=engine) as service:
        playground = Playground(service, settings.server.public_url or _address(listener), settings.store.data_dir)
        main, lifecycle = _server(create_app(settings.server, service)), service.lifecycle
        loop, stopping = asyncio.get_running_loop(), list[asyncio.Task[None]]()

        def stop() -> None:
            """First signal: finish open requests. Second: requeue their jobs. Third: close their connections."""
            main.force_exit = lifecycle.is_draining
            if main.should_exit:
                lifecycle.drain()
            loop.call_later(DRAIN_AFTER_S, lifecycle.drain)
            # Clients reconnect with the id of the last event that they received.
            lifecycle.close_watches()
            if not main.should_exit:
                stopping.append(asyncio.create_task(_print_stop(service, console)))
            main.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

        def abort() -> None:
            """Stop immediately, because a model could not be loaded and no request can finish."""
            stop()
            lifecycle.drain()

        engine.ready.add_done_callback(
            lambda ready: _freeze_objects() if ready.exception() is None else loop.call_soon_threadsafe(abort)
        )
        if opens_browser:
            playground.open_when(engine.ready, console)
        async with _operator_api(settings, service, playground, console):
            _print_banner(settings, service, listener, console)
            await _print_missing_account(service, console)
            await main.serve(sockets=[listener])
    if engine.ready.done():
        engine.ready.result()


def _freeze_objects() -> None:
    """Exclude existing objects from garbage collection, because a full collection would stop all threads for 0.2 s."""
    gc.collect()
    gc.freeze()


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            # httptools does not read the body after `Upgrade: h2c` and parses it as the next request; h11 does read it.
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
    )


@asynccontextmanager
async def _operator_api(
    settings: Settings, service: Service, playground: Playground, console: Console
) -> AsyncIterator[None]:
    """Serve the operator's API until the context exits, if a socket can be bound."""
    is_shared = settings.store.database_url is not None
    listening = shared_operator_listener if is_shared else operator_listener
    with listening(settings.store.data_dir) as listener:
        if listener is None:
            console.print(f"note: {_NO_SHARED_SOCKET if is_shared else _NO_SOCKET}", markup=False)
            yield
            return
        server = _server(create_operator_app(service.operator, service.roster, playground.link))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


def _print_banner(settings: Settings, service: Service, listener: socket.socket, console: Console) -> None:
    address = _address(listener)
    console.print(f"allaprima serves at {address} (API reference at /docs)", markup=False)
    for model in service.models.served():
        fallback = f" - served by {model.served_by.id}, because its weights are missing" if model.is_fallback else ""
        console.print(f"  model {model.id}{fallback}", markup=False)
    for line in _places(settings.store):
        console.print(f"  {line}", markup=False)
    if service.first_key:
        console.print(
            f"  key {service.first_key} (shown only once; create more with `allaprima keys create`)", markup=False
        )
    if service.local_key:
        console.print("  requests from this machine need no key; all others are refused (--no-auth)", markup=False)
    if console.is_terminal:
        _print_ways_in(settings, service, address, console)


def _places(settings: StoreSettings) -> list[str]:
    """Return where the data is, without passwords."""
    folder = settings.data_dir.resolve()
    if settings.database_url is None:
        return [f"data in {folder}"]
    database = place_of(settings.database_url.get_secret_value())
    return [f"database {database}", f"images in {settings.bucket or folder}"]


async def _print_missing_account(service: Service, console: Console) -> None:
    """Print how to create the first account and key, which a server on a shared database does not do by itself."""
    if not await service.accounts.all():
        console.print(
            "  there is no account yet: create one with `allaprima accounts create NAME`, and its key with `allaprima "
            "keys create --account NAME`",
            markup=False,
        )


def _print_ways_in(settings: Settings, service: Service, address: str, console: Console) -> None:
    """Print how to open the playground. Only a terminal gets the link with a key, because a log would keep it."""
    if service.local_key:
        console.print(f"  generate in the browser: {address}/", markup=False)
    elif service.first_key:
        # A fragment is sent to no server.
        console.print(f"  generate in the browser: {address}/#key={service.first_key}", markup=False)
        if is_loopback_name(settings.server.host):
            console.print("  to need no key on this machine: allaprima serve --no-auth", markup=False)
    else:
        console.print("  generate in the browser: allaprima open", markup=False)


def _address(listener: socket.socket) -> str:
    """Return the URL of the server, with an address of this machine if it listens on all."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only compared
        host = _own_address(listener.family) or host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address(family: int) -> str | None:
    """Return the address from which this machine reaches others, or None without a network."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket chooses a route and sends nothing. The address is one for documentation.
            probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None


async def _print_stop(service: Service, console: Console) -> None:
    """Print what a stop does with the unfinished jobs."""
    with suppress(StoreError):
        load = await service.job_records.load()
        running, kept = load.unfinished - load.queued, load.queued
        console.print(
            f"stopping: running jobs ({running}) may end, queued jobs ({kept}) are kept for the next start; stop again "
            "to end at once",
            markup=False,
        )
