"""Transcripts of the command line, in a terminal and in pipes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.acceptance.processes import allaprima, environment
from tests.acceptance.terminal import Terminal
from tests.waiting import LIMIT_S

SMALL = ("--size", "64x64", "--steps", "1")
#: Characters of frames, bars and cut texts.
DRAWN = re.compile("[\u2500-\u259f\u2026\x1b]")
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

pytestmark = pytest.mark.timeout(900)


def piped(
    *arguments: object, folder: Path, stdin: bytes = b"", **settings: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command whose streams are pipes."""
    command = [sys.executable, "-m", "allaprima", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(**settings), input=stdin, capture_output=True, timeout=LIMIT_S, check=False
    )


def messages(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    """Return the lines of stderr, of which none is blank or drawn."""
    text = done.stderr.decode()
    assert not DRAWN.search(text), text
    lines = text.splitlines()
    assert all(line.strip() for line in lines), text
    return lines


# Generating


def test_prompts_from_stdin_and_files_lose_no_image(tmp_path: Path) -> None:
    first = piped("generate", "-", *SMALL, "--seed", 7, folder=tmp_path, stdin=b"a red apple\n")
    second = piped("generate", "a red apple", *SMALL, "--seed", 7, folder=tmp_path)

    assert (first.stdout, second.stdout) == (b"a-red-apple-7.png\n", b"a-red-apple-7-2.png\n")
    assert messages(first)[0] == "loading sketch"
    assert len(messages(first)) == 2
    assert (tmp_path / "a-red-apple-7.png").read_bytes() == (tmp_path / "a-red-apple-7-2.png").read_bytes()

    (tmp_path / "prompts.txt").write_text("# fruit\na pear\n\na lemon\n")
    (tmp_path / "out").mkdir()
    several = piped("generate", "--prompts", "prompts.txt", "-o", "out", *SMALL, "--seed", 1, folder=tmp_path)
    assert several.stdout.splitlines() == [b"out/a-pear-1.png", b"out/a-lemon-1.png"]

    again = piped("generate", "--like", "a-red-apple-7.png", "-o", "-", folder=tmp_path)
    assert again.stdout == (tmp_path / "a-red-apple-7.png").read_bytes()
    messages(again)


@pytest.mark.parametrize(
    ("output", "reason"),
    [("nowhere/x.png", "No such file or directory"), ("x.gif", "must end in"), ("file/x.png", "Not a directory")],
)
def test_output_is_refused_before_anything_is_loaded(tmp_path: Path, output: str, reason: str) -> None:
    (tmp_path / "file").touch()

    done = piped("generate", "a red apple", "-o", output, folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, b"")
    [line] = messages(done)
    assert line.startswith("error: --output: ")
    assert reason in line


def test_terminal_shows_a_line_before_the_image(tmp_path: Path) -> None:
    with Terminal("generate", "a red apple", *SMALL, "-o", "apple.png", folder=tmp_path) as terminal:
        assert terminal.until("loading sketch").startswith("loading sketch")
        assert terminal.finish() == 0
        assert "apple.png\n" in terminal.text
        assert "\u2580" in terminal.text
    with Image.open(tmp_path / "apple.png") as image:
        assert image.size == (64, 64)


@pytest.mark.parametrize("source", ["argument", "stdin"])
def test_prompt_in_utf8_is_read_in_a_terminal_of_ascii(tmp_path: Path, source: str) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    prompt = "a größe" if source == "argument" else "-"

    done = piped("generate", prompt, *SMALL, "-o", "a.png", folder=tmp_path, stdin="a größe".encode(), **ascii_only)

    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.info["allaprima"])["prompt"] == "a größe"


def test_prompt_of_other_bytes_is_refused_in_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "allaprima", "generate", b"\xff"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, timeout=LIMIT_S, check=False)

    assert (done.returncode, done.stderr) == (2, b"error: PROMPT: is not UTF-8\n")


# Lists


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a key and two accounts."""
    folder = tmp_path_factory.mktemp("lists") / "data"
    for arguments in (("keys", "create", "--name", "for a friend"), ("accounts", "create", "acme")):
        assert allaprima(*arguments, "--data-dir", folder, folder=folder.parent).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        (("keys", "list"), [r"[0-9A-Za-z]{8}", "for a friend", r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", "ordinary", "valid"]),
        (("accounts", "list"), [UUID, "default", "0", r"0\.000000", "0"]),
        (("models",), ["flux/schnell", r"[\w/, .-]+", ".+", ".+"]),
        (("show", "sketch"), ["id", "allaprima/sketch"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_list_in_a_pipe_has_tabs_and_whole_values(data_dir: Path, command: tuple[str, ...], columns: list[str]) -> None:
    done = piped(*command, folder=data_dir.parent)

    assert done.returncode == 0
    assert messages(done) == []
    text = done.stdout.decode()
    assert not DRAWN.search(text)
    cells = text.splitlines()[0].split("\t")
    assert len(cells) == len(columns)
    for cell, pattern in zip(cells, columns, strict=True):
        assert re.fullmatch(pattern, cell), cell
    assert json.loads(piped(*command, "--json", folder=data_dir.parent).stdout)


def test_doctor_in_a_pipe_prints_plain_lines(tmp_path: Path) -> None:
    done = piped("doctor", folder=tmp_path)

    assert messages(done) == []
    text = done.stdout.decode()
    assert not DRAWN.search(text)
    findings, title, precisions = text.partition("flux/schnell on cpu\n")
    assert title
    assert all(re.match(r"(ok|missing) +[^\t]+: ", line) for line in findings.splitlines())
    assert [len(line.split("\t")) for line in precisions.splitlines()] == [4] * 6


def test_doctor_in_a_terminal_says_at_once_that_it_works(tmp_path: Path) -> None:
    with Terminal("doctor", folder=tmp_path) as terminal:
        assert terminal.until("checking this machine")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("command", [("keys", "list"), ("accounts", "list")], ids=" ".join)
def test_list_in_a_narrow_terminal_cuts_no_id(data_dir: Path, command: tuple[str, ...]) -> None:
    records = json.loads(piped(*command, "--json", folder=data_dir.parent).stdout)
    with Terminal(*command, folder=data_dir.parent, columns=40) as terminal:
        assert terminal.finish() == 0
        lines = terminal.text.splitlines()

    assert "\u2026" not in terminal.text
    assert max(map(len, lines)) <= 40
    first_column = "".join(re.split("[\u2502\u2503]", line)[1].strip() for line in lines if line[:1] in "\u2502\u2503")
    for record in records:
        assert (record["prefix"] if command[0] == "keys" else record["id"]) in first_column


def test_keys_create_says_which_folder_it_made(tmp_path: Path) -> None:
    refused = piped("keys", "create", folder=tmp_path)
    assert refused.returncode == 2
    assert messages(refused) == [
        f"error: there is no data folder in {tmp_path / 'data'}; name the server's with --data-dir"
    ]
    assert list(tmp_path.iterdir()) == []

    made = piped("keys", "create", "--data-dir", "data", folder=tmp_path)
    assert re.fullmatch(rb"ap_[0-9A-Za-z]{36}\n", made.stdout)
    created, shown = messages(made)
    assert created == f"created the data folder {tmp_path / 'data'}"
    assert shown.startswith("created the key ")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("help",), "allaprima --help"),
        (("list",), "allaprima models"),
        (("lst",), "allaprima models"),
        (("run", "a red apple"), "allaprima generate"),
        (("servee",), "allaprima serve"),
        (("keys", "lst"), "allaprima keys list"),
        (("generate", "a", "--widht", "512"), "--width"),
    ],
    ids=" ".join,
)
def test_mistyped_command_or_option_is_refused_with_the_nearest(
    tmp_path: Path, arguments: tuple[str, ...], nearest: str
) -> None:
    done = piped(*arguments, folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, b"")
    problem, see = messages(done)
    assert problem.startswith("error: no ")
    assert nearest in problem
    assert see.startswith("see: ")
    assert see.endswith(" --help")


@pytest.mark.parametrize(
    ("option", "value"), [("--width", "100"), ("--height", "16"), ("--steps", "13"), ("--seed", "-1"), ("--count", "9")]
)
def test_refused_value_names_its_option(tmp_path: Path, option: str, value: str) -> None:
    done = piped("generate", "a red apple", option, value, folder=tmp_path)

    assert done.returncode == 2
    assert messages(done)[0].startswith(f"error: {option}: must be ")


@pytest.mark.parametrize("command", [("keys", "list"), ("open",), ("serve", "--port", "0")], ids=" ".join)
def test_file_as_data_folder_is_refused_in_words(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()

    done = piped(*command, "--data-dir", "file", folder=tmp_path)

    assert done.returncode == 2
    assert messages(done)[-1] == "error: the data folder file can't be used: it is a file, not a folder"


def test_pull_without_connection_says_what_else_to_do(tmp_path: Path) -> None:
    done = piped("pull", folder=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")

    assert done.returncode == 2
    first, line = messages(done)
    assert first == "asking the hub for the files of flux/schnell"
    assert line.startswith("error: no connection to 127.0.0.1:9 (Connection refused); ")
    assert "--model FOLDER" in line
    assert "HF_ENDPOINT" in line


# Interrupts


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("models",), "allaprima.cli.main"),
        (("models",), "typer"),
        (("models",), "pydantic"),
        (("keys", "list"), "sqlalchemy"),
        (("generate", "a red apple"), "PIL"),
        (("generate", "a red apple"), "torch"),
        (("serve", "--port", "0"), "torch"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_interrupt_during_an_import_prints_no_traceback(data_dir: Path, command: tuple[str, ...], module: str) -> None:
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "from allaprima.__main__ import main\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=data_dir.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_generation_without_traceback(tmp_path: Path) -> None:
    with Terminal("generate", "a red apple", "--steps", 12, "-n", 4, folder=tmp_path) as terminal:
        terminal.until("loading sketch")
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.text
    assert list(tmp_path.iterdir()) == []


# Help


@pytest.mark.parametrize("command", [(), ("generate",), ("serve",), ("keys", "create")], ids=" ".join)
def test_help_in_a_narrow_terminal_has_every_word(tmp_path: Path, command: tuple[str, ...]) -> None:
    def words(text: str) -> list[str]:
        return text.split()

    with Terminal(*command, "--help", folder=tmp_path, columns=40) as narrow:
        assert narrow.finish() == 0
    wide = piped(*command, "--help", folder=tmp_path, COLUMNS="200").stdout.decode()

    assert max(map(len, narrow.text.splitlines())) <= 40
    assert not DRAWN.search(narrow.text)
    assert words(narrow.text) == words(wide)


def test_first_start_in_a_terminal_prints_the_way_in(tmp_path: Path) -> None:
    arguments = ("serve", "--port", 0, "--data-dir", tmp_path / "data")
    for link in (r"http://127\.0\.0\.1:\d+/#key=ap_[0-9A-Za-z]{36}\n", r"allaprima open\n"):
        with Terminal(*arguments, folder=tmp_path, columns=200) as terminal:
            terminal.until("generate in the browser: ")
            terminal.until("loaded model")
            terminal.press("\x03")
            assert terminal.finish() == 0
            assert re.search(f"generate in the browser: {link}", terminal.text)
            assert "Traceback" not in terminal.text
