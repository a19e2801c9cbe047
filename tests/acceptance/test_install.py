"""A source distribution and the wheel that is built from it install, bring everything, and generate an image.

The environments use the dependencies of the environment that runs the tests, so nothing is downloaded.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from allaprima import __version__
from tests.programs import need
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "allaprima"
#: Files of the source tree that no installation needs: sources of the kernels and what a developer's tools write.
NOT_INSTALLED = re.compile(r"kernels/(native/.*|_native.*\.so)|store/migrations/script\.py\.mako|.*\.pyc")


def run(*command: object, folder: Path, **variables: str) -> str:
    """Run a command without this project on its path; return its stdout, or fail with its output."""
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(("ALLAPRIMA_", "PYTHON"))
    }
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments: object, folder: Path, **variables: str) -> str:
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    return run(sys.executable, "-m", "pip", *arguments, *options, folder=folder, **variables)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this tree."""
    folder = tmp_path_factory.mktemp("sdist")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignore)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    run(sys.executable, "-W", "ignore", "-c", build, folder=folder)
    [file] = (folder / "dist").iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the source distribution."""
    need("g++", "compiles the kernels")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--wheel-dir", folder, sdist, folder=folder)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """Install a distribution into a new environment; return the environment's `allaprima`."""

    def install_into(file: Path, **variables: str) -> Path:
        folder = tmp_path / "environment"
        run(sys.executable, "-m", "venv", "--without-pip", folder, folder=tmp_path)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        pip("--python", folder / "bin" / "python", "install", file, folder=tmp_path, **variables)
        return folder / "bin" / "allaprima"

    return install_into


def names(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as opened:
        return {name.partition("/")[2] for name in opened.getnames()}


def test_wheel_has_every_file_of_the_package_and_the_kernels_and_no_test(wheel: Path) -> None:
    files = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    expected = {f"allaprima/{name}" for name in files if not NOT_INSTALLED.fullmatch(name)}
    found = {name for name in names(wheel) if ".dist-info/" not in name}
    assert expected <= found
    [kernels] = found - expected
    assert re.fullmatch(r"allaprima/kernels/_native\..*so", kernels)


def test_source_distribution_has_the_sources_of_the_kernels_and_no_test(sdist: Path) -> None:
    found = names(sdist)
    native = SOURCE / "kernels" / "native"
    assert {f"src/allaprima/kernels/native/{path.name}" for path in native.iterdir() if path.is_file()} <= found
    assert {"LICENSE", "NOTICE", "README.md", "pyproject.toml"} <= found
    assert not [name for name in found if name.startswith(("tests", "training"))]


def generates(allaprima: Path, folder: Path) -> None:
    """Check that an installed command generates an image in an empty folder."""
    folder.mkdir()
    run(allaprima, "generate", "a red apple", "--size", "64x64", "--seed", "7", "-o", "apple.png", folder=folder)
    with Image.open(folder / "apple.png") as image:
        assert image.size == (64, 64)
    assert [path.name for path in folder.iterdir()] == ["apple.png"]


def test_installed_wheel_generates_with_the_compiled_kernels(
    wheel: Path, install: Callable[..., Path], tmp_path: Path
) -> None:
    allaprima = install(wheel)
    assert run(allaprima, "--version", folder=tmp_path).strip() == __version__
    findings = json.loads(run(allaprima, "doctor", "--json", folder=tmp_path))["findings"]
    [kernels] = [one["message"] for one in findings if one["name"] == "CPU kernels"]
    assert kernels.startswith("compiled")
    generates(allaprima, tmp_path / "empty")


def test_source_distribution_installs_without_a_compiler_and_generates(
    sdist: Path, install: Callable[..., Path], tmp_path: Path
) -> None:
    allaprima = install(sdist, CC="false", CXX="false")
    assert not list(allaprima.parents[1].rglob("_native*"))
    generates(allaprima, tmp_path / "empty")
