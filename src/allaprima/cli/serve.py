"""`allaprima serve`: the API on a TCP socket and the operator's door on a socket in the data folder, in one loop."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from rich.console import Console
from uvicorn.loops.auto import auto_loop_factory

from allaprima.api.app import create_app
from allaprima.api.operator import create_admin_app
from allaprima.bootstrap import build_engine, open_service
from allaprima.cli.logs import configure_logs
from allaprima.cli.operator import socket_path
from allaprima.cli.traces import exported_traces
from allaprima.engine.local import LocalEngine
from allaprima.errors import SettingsError
from allaprima.service.app import Service
from allaprima.settings import ServerSettings, Settings

#: Seconds that open requests get when the server stops: to be painted, and then to hear that they were not.
PAINT_S, GRACE_S = 18, 20
BACKLOG = 2048
#: Seconds that an idle connection is kept: longer than clients keep theirs, so that none is closed as it is used again.
KEEP_ALIVE_S = 75
#: Seconds after which a thread that runs Python gives way to another that wants to.
SWITCH_S = 0.0005


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to `run`, which has two of them to stop."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with nullcontext():
            yield


def run(settings: Settings, words: Console) -> None:
    """Serve until a signal comes. Raises `Error`s that keep the server from starting or end it."""
    configure_logs(settings.server.log_format)
    # The engine's thread holds the interpreter between two kernels; an answer that hops between threads a dozen times
    # would wait five milliseconds, the interpreter's own measure, at each.
    sys.setswitchinterval(SWITCH_S)
    engine = build_engine(settings.engine)
    listener = _bind(settings.server)
    traces, runner = exported_traces(settings.server.traces_endpoint), asyncio.Runner(loop_factory=auto_loop_factory())
    with listener, traces, runner:
        runner.run(_serve(settings, engine, listener, words))


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named: asyncio turns Nagle's delay (40 ms an answer) off for such sockets only.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # From here on the port is ours, and whoever reads the greeting is not refused.
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise SettingsError(f"can't listen on {where}: {exc.strerror}; choose another with --port or --host") from exc
    return listener


async def _serve(settings: Settings, engine: LocalEngine, listener: socket.socket, words: Console) -> None:
    async with open_service(settings, engine=engine) as service:
        main = _server(create_app(settings.server, service))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            """First signal: let open requests be painted. Second: give them back. Third: cut them off."""
            main.force_exit = service.jobs.is_draining
            if main.should_exit:
                service.jobs.drain()
            loop.call_later(PAINT_S, service.jobs.drain)
            # Who only watches comes back with the last event that it saw; nobody need wait for it.
            service.jobs.close_streams()
            main.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

        def give_up() -> None:
            """No model, no pictures: nobody need wait for them."""
            stop()
            service.jobs.drain()

        engine.ready.add_done_callback(
            lambda ready: _keep_for_good() if ready.exception() is None else loop.call_soon_threadsafe(give_up)
        )
        async with _admin(settings, service):
            _greet(settings, service, listener, words)
            await main.serve(sockets=[listener])
    if engine.ready.done():
        engine.ready.result()


def _keep_for_good() -> None:
    """Let the garbage collector look no more at what is loaded: it would hold everything up for a fifth of a second."""
    gc.collect()
    gc.freeze()


def _server(app: FastAPI) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            # h11, not httptools: with `Upgrade: h2c` httptools leaves the body unread, and it runs as the next request.
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            backlog=BACKLOG,
        )
    )


@asynccontextmanager
async def _admin(settings: Settings, service: Service) -> AsyncIterator[None]:
    """Serve the operator's door while the context lasts."""
    path = socket_path(settings.store.data_dir)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as door:
        _bind_private(door, path)
        server = _server(create_admin_app(service.operator))
        serving = asyncio.create_task(server.serve(sockets=[door]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving
            path.unlink(missing_ok=True)


def _bind_private(door: socket.socket, path: Path) -> None:
    before = os.umask(0o077)
    try:
        door.bind(str(path))
    finally:
        os.umask(before)


def _greet(settings: Settings, service: Service, listener: socket.socket, words: Console) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    words.print(f"allaprima serves at http://{shown}:{port} (reference at /docs)", markup=False)
    for model in service.models.served():
        painter = f" - painted by {model.painted_by.id}: its own weights are not here" if model.is_stand_in else ""
        words.print(f"  model {model.id}{painter}", markup=False)
    words.print(f"  data in {settings.store.data_dir.resolve()}", markup=False)
    if service.first_key:
        words.print(f"  key {service.first_key} (shown only now; more with `allaprima keys create`)", markup=False)
