"""Bounds on the size of classes and signatures, and on what route modules import."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
