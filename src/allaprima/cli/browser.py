"""Opens links of a server in the user's browser."""

import html
import os
import sys
import webbrowser
from pathlib import Path

#: The file in the data folder that hands a link to the browser.
PAGE_FILE = "open.html"
#: A page that goes on to a link at once.
_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}">
<title>allaprima</title>
<p><a href="{link}">Open allaprima</a></p>
"""


def open_link(link: str, data_dir: Path) -> bool:
    """Open a link in a browser with a window; return whether there was one.

    A link with a token is passed in a file that only this user can read, because every user of the machine can read the
    arguments of a browser's process.
    """
    if not _has_window():
        return False
    try:
        return webbrowser.open(_page(link, data_dir) if "#" in link else link)
    except (OSError, webbrowser.Error):
        return False


def _has_window() -> bool:
    """Whether a browser can show a window. Without one, `webbrowser` would run a text browser in the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _page(link: str, data_dir: Path) -> str:
    """Write the page that goes on to a link, and return its URL. Raises `OSError`."""
    path = data_dir.resolve() / PAGE_FILE
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_PAGE.format(link=html.escape(link)))
    return path.as_uri()
