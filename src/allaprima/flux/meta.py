"""Networks on the meta device: shapes and dtypes, without memory and without initial values."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

#: The functions that initialise weights in constructors of `torch.nn`; torch calls them with keywords.
_INITIALISERS = {init.normal_, init.uniform_, init.constant_, init.kaiming_uniform_}


class _SkipInitialisers(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func in _INITIALISERS else func(*args, **given)


@contextmanager
def meta_device() -> Iterator[None]:
    """Create networks on the meta device inside the context, to be assigned by `load_state_dict`.

    Initialisers do nothing. On this device they would change no values, but torch would import `torch._dynamo` for
    them, which takes as long as importing torch.
    """
    with torch.device("meta"), _SkipInitialisers():
        yield
