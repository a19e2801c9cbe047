"""What the pages and the files of `deploy/` name exists: settings, commands and options."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from allaprima.cli.main import app
from allaprima.settings import PREFIX, Settings
from tests.deploy import DEPLOY, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md"), *ROOT.glob("examples/*.md")])
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
#: Variables that are no settings of the server.
OTHERS = {"ALLAPRIMA_URL", "ALLAPRIMA_KEY", "ALLAPRIMA_KERNELS"}
#: Registries and indexes, in none of which the package is.
REGISTRY = re.compile(r"pypi\.org|pythonhosted|download\.pytorch|registry\.npmjs|docker\.io|ghcr\.io|quay\.io")
FROM_REGISTRY = re.compile(r"(pip|pipx|uv tool) install (-\S+ )*allaprima\b|docker (run|pull) .*\w/allaprima")
#: A command and its words, up to the end of the line, the code mark or the shell command.
COMMAND = re.compile(r"\ballaprima((?: [a-z]+)+)((?: +[^\s`|;&()]+)*)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    known = {
        f"{PREFIX}{group}__{field}".upper()
        for group, info in Settings.model_fields.items()
        for field in (info.annotation.model_fields if info.annotation else {})
    }
    named = set(re.findall(r"\bALLAPRIMA_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named - known - OTHERS == set()


def commands(text: str) -> Iterator[tuple[Any, str]]:
    """Yield each command of the program in a text, with the words after it."""
    for words, rest in COMMAND.findall(text):
        command: Any = typer.main.get_command(app)
        for word in words.split():
            command = getattr(command, "commands", {}).get(word, command)
        if not hasattr(command, "commands"):
            yield command, rest


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=name)
def test_every_option_of_a_command_exists(path: Path) -> None:
    unknown = []
    for command, rest in commands(path.read_text()):
        known = {text for one in command.params for text in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        options = [word.partition("=")[0] for word in rest.split() if re.match(r"--?[a-z]", word)]
        unknown += [f"{command.name} {option}" for option in options if option.rstrip(".,") not in known]
    assert unknown == []


@pytest.mark.parametrize("path", [*PAGES, *FILES], ids=name)
def test_no_registry_is_named(path: Path) -> None:
    text = path.read_text()
    assert REGISTRY.search(text) is None
    assert FROM_REGISTRY.search(text) is None
