"""Write docs/reference/settings.md from the fields of the settings; with --check, fail if the page is stale."""

import argparse
import json
import sys
from pathlib import Path

from allaprima.settings import PREFIX, Settings

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
HEAD = """# Settings

The server reads its settings from environment variables; an option of the command line takes precedence. A variable
that starts with `ALLAPRIMA_` and is in no table is refused, except `ALLAPRIMA_URL` and `ALLAPRIMA_KEY`, which clients
read, and `ALLAPRIMA_KERNELS`. Lists are JSON, such as `["10.0.0.0/8"]`. (Written by `python tools/settings_table.py`.)
"""


def as_text(value: object) -> str:
    """Return a default in the form that the environment takes."""
    return json.dumps(value) if isinstance(value, tuple | bool | dict) else str(value)


def page() -> str:
    """Return the page's text."""
    lines = [HEAD]
    for group, field in Settings.model_fields.items():
        model = type(field.default)
        lines += [f"## {group}", "", "| variable | default | what |", "|---|---|---|"]
        for name, value in model.model_fields.items():
            default = value.get_default(call_default_factory=True)
            shown = "none" if default is None else f"`{as_text(default)}`"
            lines.append(f"| `{PREFIX}{group.upper()}__{name.upper()}` | {shown} | {value.description} |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    if parser.parse_args().check:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
