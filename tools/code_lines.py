"""Count the lines of code of a tree, without docstrings, comments and blank lines.

    python tools/code_lines.py [FOLDER ...]

Prints the lines of the Python files in each top-level folder, migrations included, and the total.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


def code_lines(source: str) -> int:
    """Return the number of lines of a module that hold code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in IGNORED and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def main() -> None:
    """Print the counts of the folders named on the command line; of `src/allaprima` by default."""
    counts: Counter[str] = Counter()
    for folder in map(Path, sys.argv[1:] or ["src/allaprima"]):
        for path in folder.rglob("*.py"):
            counts[path.relative_to(folder).parts[0]] += code_lines(path.read_text())
    for name, count in sorted(counts.items()):
        print(f"{count:7,} {name}")
    print(f"{sum(counts.values()):7,} in all")


if __name__ == "__main__":
    main()
