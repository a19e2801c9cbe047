"""Reuse of workspace memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from allaprima.kernels import workspace


@pytest.fixture
def new_thread() -> Iterator[ThreadPoolExecutor]:
    """A pool of one new thread, whose workspace is empty."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_unused_block_is_reused(new_thread: ThreadPoolExecutor) -> None:
    def work() -> None:
        like = torch.zeros(1)
        first = workspace.empty((1024, 1024), like)
        address = first.data_ptr()
        view = first[3:]
        second = workspace.empty((1024, 1024), like)
        assert second.data_ptr() != address
        del first
        assert workspace.empty((1024, 1024), like).data_ptr() not in (address, second.data_ptr())
        del view
        assert workspace.empty((900, 1024), like).data_ptr() == address

    new_thread.submit(work).result()


@pytest.mark.parametrize(
    "view_of",
    [
        lambda tensor: tensor[3:],
        lambda tensor: tensor.view(torch.int32),
        lambda tensor: tensor.numpy()[5:],
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: tensor.untyped_storage(),
    ],
    ids=["slice", "other dtype", "numpy view", "memoryview", "storage"],
)
def test_memory_is_not_reused_while_view_exists(
    new_thread: ThreadPoolExecutor, view_of: Callable[[Tensor], object]
) -> None:
    def work() -> None:
        like = torch.zeros(1)
        tensor = workspace.empty((1024, 1024), like)
        address = tensor.data_ptr()
        view = view_of(tensor)
        del tensor
        later = [workspace.empty((1024, 1024), like) for _ in range(3)]
        assert address not in [each.data_ptr() for each in later]
        del view
        assert workspace.empty((1024, 1024), like).data_ptr() == address

    new_thread.submit(work).result()


def test_block_is_not_reused_while_numpy_view_exists() -> None:
    blocks = workspace.Workspace()
    array = blocks.take(2**20)
    address, view = array.ctypes.data, array[7:]
    del array
    assert blocks.take(2**20).ctypes.data != address
    del view
    assert blocks.take(2**20).ctypes.data == address


def test_block_is_not_used_for_much_smaller_tensor(new_thread: ThreadPoolExecutor) -> None:
    def work() -> None:
        like = torch.zeros(1)
        address = workspace.empty((2048, 1024), like).data_ptr()
        assert workspace.empty((1024, 1024), like).data_ptr() != address
        assert workspace.empty((10,), like).shape == (10,)

    new_thread.submit(work).result()


def test_idle_blocks_are_freed_beyond_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "MAX_POOL_BYTES", 10 * 2**20)
    memory = workspace.Workspace()
    held = memory.take(4 * 2**20)
    [kept] = memory.blocks
    for size in (3, 5, 7):
        memory.take(size * 2**20)
        assert sum(block.nbytes for block in memory.blocks) <= 10 * 2**20
    assert kept in memory.blocks
    assert not kept.is_idle
    del held
    assert kept.is_idle


def test_threads_do_not_share_blocks(new_thread: ThreadPoolExecutor) -> None:
    like = torch.zeros(1)
    address = workspace.empty((1024, 1024), like).data_ptr()
    actual = new_thread.submit(lambda: workspace.empty((1024, 1024), like).data_ptr()).result()
    assert actual != address
