"""The entry point of the command `allaprima` and of `python -m allaprima`."""

import os
import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ctrl-C during its import, which takes some tenths of a second, prints no traceback."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from allaprima.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
