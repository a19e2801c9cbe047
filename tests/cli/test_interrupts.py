"""Ctrl-C during imports: it ends the command, even where a library discards it."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from allaprima.cli.interrupts import kept_interrupts


def import_with_interrupt(steps: list[str], *, is_discarded: bool) -> None:
    """Press Ctrl-C during an import, which may discard it."""
    with kept_interrupts():
        with contextlib.suppress(BaseException if is_discarded else ValueError):
            signal.raise_signal(signal.SIGINT)
        steps.append("imported")


@pytest.mark.parametrize("is_discarded", [False, True])
def test_interrupt_is_raised_at_once_or_after_the_import_that_discarded_it(*, is_discarded: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        import_with_interrupt(steps, is_discarded=is_discarded)
    assert steps == (["imported"] if is_discarded else [])
    assert signal.getsignal(signal.SIGINT) is before


def import_that_replaces_interrupt() -> None:
    with kept_interrupts():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError from error


def test_interrupt_that_a_library_made_an_error_is_raised_as_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        import_that_replaces_interrupt()


def test_block_without_interrupt_raises_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with kept_interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupted_string_of_code_exits_with_130(tmp_path: Path) -> None:
    program = "from allaprima.cli import main\nmain.app = lambda: exec('raise KeyboardInterrupt')\nmain.main()"
    (tmp_path / "interrupted.py").write_text(program)
    # Only a program that runs as a module would be killed.
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
