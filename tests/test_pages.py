"""The pages agree with the code: links, routes, fields, headers, errors, commands, and where measurements are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import typer.main

import allaprima
from allaprima import errors
from allaprima.api.dialects.aiml.requests import MEMBERS
from allaprima.api.errors import FRAMEWORK_MESSAGES, status_of
from allaprima.api.http.request_id import EXPOSED_HEADERS
from allaprima.cli.main import app
from allaprima.metrics import Metrics

ROOT = Path(__file__).parent.parent
PACKAGE = Path(allaprima.__file__).parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *DOCS.rglob("*.md")])
#: Errors that no HTTP client gets: they end a command or keep a server from starting.
NOT_OVER_HTTP = (errors.WeightsError, errors.SettingsError, errors.StoreLocked, errors.StoreUnreachable)
#: Left out of a source distribution.
EXAMPLES = ROOT / "examples"

LINK = re.compile(r"\]\(([^()\s]+)\)")
ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of the first table below a heading, without its head."""
    text = (DOCS / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [[cell.strip() for cell in row.split(" | ")] for row in ROW.findall(text)]
    yield from table[1:]


def words(text: str) -> list[str]:
    """Return what stands in code marks."""
    return re.findall(r"`([^`]+)`", text)


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if target.startswith("https://") or (found.is_relative_to(EXAMPLES) and not EXAMPLES.exists()):
            continue
        headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE) if found.suffix == ".md" else []
        if not found.exists() or (fragment and fragment not in map(anchor, headings)):
            broken.append(target)
    assert broken == []


def test_index_links_every_page_of_the_documentation() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / target).resolve() for target in LINK.findall(index.read_text())}
    benchmarks = {page for page in PAGES if page.is_relative_to(DOCS / "benchmarks")}
    assert set(DOCS.rglob("*.md")) - linked - benchmarks == {index}


def test_measurements_are_on_the_benchmark_pages_alone() -> None:
    dated = re.compile(r"\b20\d\d-\d\d-\d\d\b(?!T)")
    others = [page for page in PAGES if not page.is_relative_to(DOCS / "benchmarks") and page.name != "CHANGELOG.md"]
    assert [page.name for page in others if dated.search(page.read_text())] == []


def test_readme_is_short() -> None:
    assert 60 <= len((ROOT / "README.md").read_text().splitlines()) <= 90


async def test_reference_lists_every_route_and_no_other(anonymous: httpx2.AsyncClient) -> None:
    document = (await anonymous.get("/openapi.json")).json()
    served = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    listed = [words(row[0])[0] for row in rows("reference/http-api.md", "Routes")]
    assert len(listed) == len(set(listed))
    assert set(listed) == served


def test_reference_lists_every_field_of_a_request_and_no_other() -> None:
    listed = [name for row in rows("reference/http-api.md", "Fields of a generation request") for name in words(row[0])]
    assert sorted(listed) == sorted(MEMBERS)


def test_reference_lists_every_header_that_pages_may_read() -> None:
    listed = {name for row in rows("reference/http-api.md", "Headers of answers") for name in words(row[0])}
    assert listed == set(EXPOSED_HEADERS)


def every_error() -> Iterator[type[errors.Error]]:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.Error) and not issubclass(kind, NOT_OVER_HTTP):
            yield kind


def test_reference_lists_every_error_with_its_status() -> None:
    raised = {(kind.code, status_of(kind.__new__(kind))) for kind in every_error() if kind is not errors.Error}
    raised |= {
        (text.partition(":")[0].lower().replace(" ", "_"), status) for status, text in FRAMEWORK_MESSAGES.items()
    }
    raised.add(("internal_error", 500))
    listed = [(words(row[1])[0], int(row[0])) for row in rows("reference/http-api.md", "Errors")]
    assert sorted(listed) == sorted(raised)


def test_reference_says_which_errors_to_retry() -> None:
    expected = {}
    for kind in every_error():
        after = issubclass(kind, errors.Busy) or kind.retry_after_s is not None
        flag = None if kind.retryable is None else str(kind.retryable).lower()
        expected[kind.code] = (flag, after)
    listed = {words(row[1])[0]: row[3] if len(row) > 3 else "" for row in rows("reference/http-api.md", "Errors")}
    for code, (flag, after) in expected.items():
        if code in listed:
            assert ("after" in listed[code]) == after, code
            assert flag is None or f"`{flag}`" in listed[code], code


def test_reference_lists_every_command_and_option() -> None:
    page = (DOCS / "reference" / "cli.md").read_text()
    missing = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for full, one in {f"{name} {sub}": one for sub, one in getattr(command, "commands", {}).items()}.items() or (
            (name, command),
        ):
            options = [
                option
                for parameter in one.params
                for option in (*parameter.opts, *parameter.secondary_opts)
                if option.startswith("-")
            ]
            missing += [text for text in (f"allaprima {full}", *options) if text not in page]
    assert missing == []


def test_operators_guide_lists_every_metric() -> None:
    text = Metrics().text(0).decode()
    served = re.findall(r"^# TYPE (allaprima_\w+) ", text, re.MULTILINE)
    listed = {name for row in rows("guides/operate.md", "Metrics") for name in words(row[0])}
    assert listed == {name for name in served if not name.endswith("_created")}


def test_architecture_names_functions_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py): ([\w.]+)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 8
    missing = []
    for path, name in named:
        body: list[ast.stmt] = ast.parse((PACKAGE / path).read_text()).body
        for part in name.split("."):
            found = [
                one
                for one in body
                if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and one.name == part
            ]
            if not found:
                missing.append(f"{path}: {name}")
                break
            body = found[0].body
    assert missing == []
