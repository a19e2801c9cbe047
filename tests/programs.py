"""External programs that some tests need."""

import os
import shutil

import pytest


def need(name: str, why: str) -> str:
    """Return the path of a program. Without it the test is skipped or, in CI, which installs it, fails.

    why: what the program does, named in the message.
    """
    path = shutil.which(name)
    if path is None:
        missing = f"there is no `{name}` on the PATH, which {why}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path
