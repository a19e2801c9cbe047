"""Bounds on the size of classes and signatures, on what route modules import, and on forks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import allaprima

SOURCE = Path(allaprima.__file__).parent
MAX_METHODS, MAX_ARGUMENTS = 12, 7
#: Functions with more arguments, by file: commands, whose arguments are their options.
LONG_SIGNATURES = {"cli/generate.py": {"generate"}, "cli/serve.py": {"serve"}}
#: Modules of `api.v1` that route modules share; every other one holds routes.
SHARED_BY_ROUTES = {"delivery", "exchange", "submission", "waiting", "paths", "time_range"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    """Yield the modules of a folder with their paths below the package."""
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text())


def functions(body: list[ast.stmt]) -> list[Function]:
    return [one for one in body if isinstance(one, Function)]


def count_arguments(function: Function) -> int:
    """Return the number of arguments, without the instance or class."""
    given = [*function.args.posonlyargs, *function.args.args]
    given = given[1:] if given and given[0].arg in ("self", "cls") else given
    return len(given) + len(function.args.kwonlyargs)


def test_no_class_of_service_is_large() -> None:
    large = [
        f"{path}: {node.name} has {len(methods)} methods, and {count} constructor arguments"
        for path, module in parsed(SOURCE / "service")
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        for methods in [functions(node.body)]
        for count in [max((count_arguments(one) for one in methods if one.name == "__init__"), default=0)]
        if len(methods) > MAX_METHODS or count > MAX_ARGUMENTS
    ]
    assert large == []


def test_no_function_has_more_than_seven_arguments() -> None:
    found: dict[str, set[str]] = {}
    for path, module in parsed(SOURCE):
        for node in ast.walk(module):
            if isinstance(node, Function) and count_arguments(node) > MAX_ARGUMENTS:
                found.setdefault(path, set()).add(node.name)
    assert found == LONG_SIGNATURES


def test_no_route_module_imports_another() -> None:
    found = []
    for path, module in parsed(SOURCE / "api" / "v1"):
        if Path(path).stem == "__init__":
            continue
        for node in ast.walk(module):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "allaprima.api.v1":
                names = [f"{node.module}.{one.name}" for one in node.names]
            parts = [name.split(".") for name in names if name.startswith("allaprima.api.v1.")]
            found += [f"{path} imports {part[3]}" for part in parts if part[3] not in SHARED_BY_ROUTES]
    assert found == []


def forks(module: ast.Module) -> list[str]:
    """Return what in a module forks the process without replacing the program: the child's bucket client would hang.

    Other programs may be run, and `multiprocessing` used with `get_context("spawn")`.
    """
    found: list[str] = []
    for node in ast.walk(module):
        match node:
            case ast.Attribute(attr="fork" | "forkpty" as name) | ast.alias(name="fork" | "forkpty" as name):
                found.append(name)
            case ast.Attribute(value=ast.Name(id="multiprocessing"), attr=name) if name != "get_context":
                found.append(name)
            case ast.ImportFrom(module="multiprocessing", names=names) if {one.name for one in names} != {
                "get_context"
            }:
                found.append("multiprocessing")
            case ast.keyword(arg="preexec_fn" as name):
                found.append(name)
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                given = [one.value for one in node.args if isinstance(one, ast.Constant)]
                keywords = {one.arg for one in node.keywords}
                if name == "get_context" and given != ["spawn"]:
                    found.append("get_context")
                if name == "ProcessPoolExecutor" and "mp_context" not in keywords:
                    found.append(name)
    return found


def test_process_is_never_forked_because_a_forked_client_of_a_bucket_hangs() -> None:
    assert [f"{path}: {name}" for path, module in parsed(SOURCE) for name in forks(module)] == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("os.fork()", ["fork"]),
        ("from os import fork", ["fork"]),
        ("pty.fork()", ["fork"]),
        ("multiprocessing.Process(target=f)", ["Process"]),
        ("from multiprocessing import Pool", ["multiprocessing"]),
        ("multiprocessing.get_context('fork').Pool(2)", ["get_context"]),
        ("multiprocessing.get_context().Pool(2)", ["get_context"]),
        ("subprocess.run(['ls'], preexec_fn=f)", ["preexec_fn"]),
        ("ProcessPoolExecutor(2)", ["ProcessPoolExecutor"]),
        ("multiprocessing.get_context('spawn').Pool(2)", []),
        ("from multiprocessing import get_context\nProcessPoolExecutor(2, mp_context=get_context('spawn'))", []),
        ("subprocess.run(['ls'])", []),
    ],
)
def test_forks_are_recognised(code: str, found: list[str]) -> None:
    assert forks(ast.parse(code)) == found
