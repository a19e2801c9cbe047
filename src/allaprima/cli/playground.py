"""The playground of the server in this process: links that sign a browser in, and its opening at the start."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from allaprima.cli.browser import open_link
from allaprima.errors import AccountNotFound, StoreError
from allaprima.service.app import Service


class Playground:
    """Creates links to the playground."""

    def __init__(self, service: Service, base_url: str, data_dir: Path) -> None:
        """base_url: the server's address, without a slash at the end."""
        self._service = service
        self._base_url = base_url
        self._data_dir = data_dir
        #: Kept, since the event loop has weak references only.
        self._opening: asyncio.Task[None] | None = None

    async def link(self, account: str | None = None) -> str:
        """Return a link that signs in to an account; without authentication, the plain address.

        account: id or name; None: the only account. Raises `AccountNotFound`.
        """
        if self._service.local_key is None:
            return f"{self._base_url}/#token={await self._service.sign_in.create_token(account)}"
        if account is not None:
            await self._service.operator.accounts.find(account)
        return f"{self._base_url}/"

    def open_when(self, ready: Future[None], console: Console) -> None:
        """Open the playground in a browser when the models are loaded. Print the link if there is no browser."""
        loop = asyncio.get_running_loop()

        def start() -> None:
            self._opening = loop.create_task(self._open(console))

        def on_ready(loaded: Future[None]) -> None:
            if loaded.exception() is None:
                with suppress(RuntimeError):  # the server has stopped
                    loop.call_soon_threadsafe(start)

        ready.add_done_callback(on_ready)

    async def _open(self, console: Console) -> None:
        try:
            link = await self.link()
        except (AccountNotFound, StoreError) as exc:
            console.print(f"note: the browser was not opened: {exc.message}", markup=False)
            return
        if not await _opened(link, self._data_dir):
            # A log would keep the link, so only a terminal gets it.
            instead = link if console.is_terminal else "`allaprima open` prints a link"
            console.print(f"note: found no browser to open; {instead}", markup=False)


async def _opened(link: str, data_dir: Path) -> bool:
    """Open a link in a browser, and return whether there was one.

    The thread is a daemon, because some browsers return when they are closed, and the server can stop before.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[bool] = loop.create_future()

    def finish(is_open: bool) -> None:
        if not result.done():
            result.set_result(is_open)

    def run() -> None:
        is_open = open_link(link, data_dir)
        with suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(finish, is_open)

    threading.Thread(target=run, daemon=True).start()
    return await result
