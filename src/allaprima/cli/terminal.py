"""Shows images in the terminal: each character shows two pixels, in 24-bit colour."""

from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

#: Largest width of an image, in characters.
MAX_COLUMNS = 80
UPPER_HALF = "\u2580"


def draw(path: Path, console: Console) -> None:
    """Show an image file. A terminal with fewer than 256 colours shows nothing."""
    if console.color_system not in ("truecolor", "256"):
        return
    with Image.open(path) as image:
        columns = min(MAX_COLUMNS, console.width)
        rows = max(2, round(columns * image.height / image.width / 2) * 2)
        small = image.convert("RGB").resize((columns, rows), Image.Resampling.BOX)
    pixels = small.load()
    assert pixels is not None
    for y in range(0, rows, 2):
        line = Text()
        for x in range(columns):
            upper, lower = pixels[x, y], pixels[x, y + 1]
            line.append(UPPER_HALF, f"rgb{upper} on rgb{lower}".replace(" ", "").replace("on", " on "))
        console.print(line)
