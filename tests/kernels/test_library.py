"""Which level of the compiled kernels is used, and reuse of workspace memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from native import cpu_flags
from torch import Tensor

from allaprima.kernels import library, workspace
from allaprima.kernels.library import IsaLevel

AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"}
AMX = AVX512 | {"amx_tile", "amx_int8", "amx_bf16"}


def test_highest_level_that_the_cpu_supports_is_used() -> None:
    if not shutil.which("g++"):
        pytest.skip("no compiler here")
    if not cpu_flags() >= {"avx2", "fma"} or library.LIMIT_VARIABLE in os.environ:
        pytest.skip(f"this CPU has no AVX2, or {library.LIMIT_VARIABLE} is set")
    assert library.is_built(), "there is a compiler, but the package was built without its kernels"
    expected = IsaLevel.AVX512 if cpu_flags() >= AVX512 else IsaLevel.AVX2
    assert library.level() == (IsaLevel.AMX if cpu_flags() >= AMX else expected)


def test_library_is_loaded_by_the_first_call_and_reads_its_variable_then() -> None:
    code = (
        "import os; from allaprima.kernels import library;"
        "print(library.library.cache_info().currsize);"
        "os.environ[library.LIMIT_VARIABLE] = 'torch';"
        "print(library.level().name)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "TORCH"]


def test_limited_lowers_the_level_inside_the_context() -> None:
    before = library.level()
    with library.limited(IsaLevel.TORCH):
        assert library.level() == IsaLevel.TORCH
        assert not library.supports_rows(torch.zeros(2).bfloat16())
    assert library.level() == before


@pytest.fixture
def new_thread() -> Iterator[ThreadPoolExecutor]:
    """A pool of one new thread, whose workspace is empty."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_block_is_reused_when_no_tensor_uses_it(new_thread: ThreadPoolExecutor) -> None:
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
def test_memory_is_not_reused_while_a_view_of_it_is_held(
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


def test_block_is_not_reused_while_a_numpy_view_of_it_is_held() -> None:
    blocks = workspace.Workspace()
    array = blocks.take(2**20)
    address, view = array.ctypes.data, array[7:]
    del array
    assert blocks.take(2**20).ctypes.data != address
    del view
    assert blocks.take(2**20).ctypes.data == address


def test_block_is_not_used_for_a_much_smaller_tensor(new_thread: ThreadPoolExecutor) -> None:
    def work() -> None:
        like = torch.zeros(1)
        address = workspace.empty((2048, 1024), like).data_ptr()
        assert workspace.empty((1024, 1024), like).data_ptr() != address
        assert workspace.empty((10,), like).shape == (10,)

    new_thread.submit(work).result()


def test_idle_blocks_are_freed_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "LIMIT", 10 * 2**20)
    blocks_of_thread = workspace.Workspace()
    held = blocks_of_thread.take(4 * 2**20)
    [kept] = blocks_of_thread.blocks
    for size in (3, 5, 7):
        blocks_of_thread.take(size * 2**20)
        assert sum(block.nbytes for block in blocks_of_thread.blocks) <= 10 * 2**20
    assert kept in blocks_of_thread.blocks
    assert not kept.is_idle
    del held
    assert kept.is_idle


def test_threads_do_not_share_blocks(new_thread: ThreadPoolExecutor) -> None:
    like = torch.zeros(1)
    address = workspace.empty((1024, 1024), like).data_ptr()
    actual = new_thread.submit(lambda: workspace.empty((1024, 1024), like).data_ptr()).result()
    assert actual != address
