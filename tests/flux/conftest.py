"""What every test of the networks needs: no gradients unless asked for, and one thread.

The networks here are so small that threads only wait for each other.
"""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _small_scale() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)
