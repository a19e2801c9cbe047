"""Every public shape gives the reference's weights, weights within its format's loss, or a refusal in one sentence.

The cases are in the modules `*_cases.py`, one function or table entry for each; the ids of the tests are their names.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from allaprima.domain.models import Precision
from allaprima.errors import WeightsError
from allaprima.weights.checkpoint.loader import CheckpointFiles, open_checkpoint
from allaprima.weights.packed_cache import PackedWeightCache
from allaprima.weights.paths import WEIGHT_ENDINGS
from tests.weights.published import CONFIG, Published, generate
from tests.weights.shapes import (
    damaged_cases,
    folder_cases,
    foreign_cases,
    header_cases,
    number_cases,
    size_cases,
    text_encoder_cases,
    transformer_cases,
    unlisted_cases,
    user_cases,
)
from tests.weights.shapes.case import Case, Refused, Right, Same, Site, Sized, write_reference

MODULES = (
    transformer_cases,
    number_cases,
    text_encoder_cases,
    foreign_cases,
    damaged_cases,
    folder_cases,
    unlisted_cases,
    header_cases,
    size_cases,
    user_cases,
)
CASES: dict[str, Case] = {}
for _module in MODULES:
    assert not CASES.keys() & _module.CASES.keys()
    CASES |= _module.CASES


def named(outcome: type) -> list[str]:
    """Return the names of the cases with a kind of outcome."""
    return [name for name, case in CASES.items() if isinstance(case.outcome, outcome)]


@pytest.fixture(scope="module")
def reference(published: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, bytes]:
    """The folder of Black Forest Labs' files, its revision, and the pixels of its image."""
    folder = tmp_path_factory.mktemp("reference")
    write_reference(folder, published)
    model = open_checkpoint(folder, PackedWeightCache(folder / "cache"), published.tokenizers).load(
        precision=Precision.BF16
    )
    return folder, model.revision, generate(model).tobytes()


@pytest.fixture
def site(tmp_path: Path, published: Published, reference: tuple[Path, str, bytes]) -> Iterator[Site]:
    yield Site(tmp_path, published, reference[0])
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o755)
    shutil.rmtree(tmp_path)


def opened(name: str, site: Site) -> tuple[Path, CheckpointFiles]:
    """Write a case, and open its path."""
    path = CASES[name].write(site) or site.folder
    return path, open_checkpoint(path, PackedWeightCache(site.cache), site.published.tokenizers)


def used_files(files: CheckpointFiles) -> set[Path]:
    """Return the files of the components."""
    return {Path(os.path.realpath(file)) for one in files.components.values() for file in one.container.files}


def assert_every_file_is_accounted_for(path: Path, files: CheckpointFiles) -> None:
    """Assert that each file of weights under a folder is used, or named as unused, itself or by its folder."""
    if not path.is_dir():
        return
    unused = {one.path for one in files.unused}
    for index in [one for one in unused if one.name.endswith(".index.fp16.json")]:
        unused |= {index.parent / shard for shard in json.loads(index.read_text())["weight_map"].values()}
    used = used_files(files)
    for folder, folders, names in os.walk(path):
        # Tools keep their state in hidden folders.
        folders[:] = [one for one in folders if not one.startswith(".")]
        for file in [Path(folder, name) for name in names if name.lower().endswith(WEIGHT_ENDINGS)]:
            is_used = Path(os.path.realpath(file)) in used
            assert is_used or {file, *file.parents} & unused, f"{file} is neither used nor named"


@pytest.mark.parametrize("name", named(Same))
def test_shape_gives_the_weights_of_the_reference(site: Site, reference: tuple[Path, str, bytes], name: str) -> None:
    outcome = CASES[name].outcome
    assert isinstance(outcome, Same)
    path, files = opened(name, site)
    assert files.config == CONFIG
    for file, pattern in outcome.unused.items():
        reasons = [one.reason for one in files.unused if one.path.name == file]
        assert reasons, f"{file} is not among {files.unused}"
        assert all(re.search(pattern, reason) and reason.isprintable() for reason in reasons), reasons
    assert_every_file_is_accounted_for(path, files)
    if outcome.load or outcome.pixels:
        model = files.load(precision=Precision.BF16)
        assert model.revision == reference[1]
        if outcome.pixels:
            assert generate(model).tobytes() == reference[2]


@pytest.mark.parametrize("name", named(Right))
def test_weights_are_right_within_the_loss_of_the_number_format(site: Site, name: str) -> None:
    outcome = CASES[name].outcome
    assert isinstance(outcome, Right)
    path, files = opened(name, site)
    assert files.config == CONFIG
    assert_every_file_is_accounted_for(path, files)
    loaded = files.load(precision=Precision.BF16).networks.state_dict()
    errors: dict[str, float] = {}
    for tensor_name, wanted in site.published.networks.state_dict().items():
        difference = loaded[tensor_name].float() - wanted.float()
        errors[tensor_name] = float(difference.norm() / wanted.float().norm())
        assert torch.isfinite(difference).all(), tensor_name
    worst = max(errors, key=lambda key: errors[key])
    assert errors[worst] <= outcome.error, (worst, errors[worst])
    # A format's loss that is far below its bound is another format, or none.
    assert errors[worst] > 0, "the case stores the weights without loss"


@pytest.mark.parametrize("name", named(Sized))
def test_model_of_other_sizes_generates(site: Site, reference: tuple[Path, str, bytes], name: str) -> None:
    outcome = CASES[name].outcome
    assert isinstance(outcome, Sized)
    path, files = opened(name, site)
    assert files.config == outcome.change(CONFIG)
    assert_every_file_is_accounted_for(path, files)
    pixels = generate(files.load(precision=Precision.BF16)).tobytes()
    assert (pixels == reference[2]) is outcome.pixels


@pytest.mark.parametrize("name", named(Refused))
def test_shape_is_refused_in_one_sentence(site: Site, name: str) -> None:
    outcome = CASES[name].outcome
    assert isinstance(outcome, Refused)
    with pytest.raises(WeightsError) as caught:
        opened(name, site)[1].load(precision=Precision.BF16)
    message = str(caught.value)
    assert isinstance(caught.value, outcome.error), repr(caught.value)
    assert message.isprintable(), repr(message)
    assert len(message) < 1000, message
    for pattern in outcome.patterns:
        assert re.search(pattern, message), f"{pattern} is not in: {message}"
