"""Ctrl-C during imports and checks that take seconds."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the end of the block, if a library in it discarded or replaced one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_pressed = False

    def raise_interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_pressed
        is_pressed = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, raise_interrupt)
    try:
        yield
    except Exception:
        # A library may turn the interrupt of its import into an error of its own.
        if is_pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if is_pressed:
        raise KeyboardInterrupt
