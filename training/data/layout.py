"""Layout of objects on a canvas, as squares of whole cells. A cell is the area of one image token of the model.

Objects are aligned to cells, so that the model must learn one appearance of each object instead of one per offset. An
object has the same size alone and among others, which also limits the number of appearances: single objects of eight
cells remained blobs long after the model had learned everything else (LOG.md, 2026-11-27). A big object fits on every
canvas, so it has the same size on all canvases.
"""

from collections.abc import Callable
from dataclasses import dataclass

#: Largest side in cells of a small object, of an object without a size in its caption, and of a big object.
SMALL, USUAL, BIG = 3, 5, 7
#: Most positions along an axis among which the free factors choose. The number is small because the model infers the
#: choice from the means of the noise: for a mean between two choices it generates half of the object at each.
POSITIONS = 3
#: Largest number of rows by which the front object is below the one behind it.
FRONT_OFFSET = 3
#: A function that returns the index of a choice. Its arguments are an axis (0: column, 1: row, 2: position of the
#: second object) and the number of choices.
Pick = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Box:
    """A square of cells: its upper left cell and its side."""

    row: int
    column: int
    cells: int


def arrange(rows: int, columns: int, count: int, relation: str | None, size: str | None, pick: Pick) -> list[Box]:
    """Return the squares of `count` objects on a canvas of rows x columns cells, in reading order.

    relation: the relation of the first object to the second, "left", "above" or "front"; None: side by side or in
    lines. size: the size of a single object, "small" or "big". pick: makes the choices that a caption does not
    determine.
    """
    if count == 1:
        short = min(rows, columns)
        usual = min(USUAL, short - 1)
        cells = {None: usual, "small": min(SMALL, usual - 1), "big": min(BIG, short)}[size]
        return [Box(_free(rows - cells, pick, 1, 2), _free(columns - cells, pick, 0, 2), cells)]
    if relation == "front":
        return _in_front(rows, columns, pick)
    if relation == "above":
        lines = [1, 1]
    elif relation == "left" or columns >= count * USUAL or rows < 2 * USUAL - 2:
        lines = [count]
    elif rows >= count * USUAL:
        lines = [1] * count
    elif count == 3:
        lines = [1, 2]
    else:
        lines = [2] * (count // 2)
    return _in_lines(rows, columns, lines, pick)


def _free(room: int, pick: Pick, axis: int, apart: int = 1) -> int:
    """Return one of at most `POSITIONS` offsets, which are `apart` cells apart and centred in `room` free cells."""
    choices = min(room + 1, POSITIONS)
    apart = max(1, min(apart, room // max(1, choices - 1)))
    return (room - (choices - 1) * apart) // 2 + apart * pick(axis, choices)


def _in_lines(rows: int, columns: int, lines: list[int], pick: Pick) -> list[Box]:
    """Return the squares of objects in centred lines. lines: number of squares in each line, from the top."""
    cells = min(USUAL, rows // len(lines), columns // max(lines))
    # Lines, and neighbours in a line, are one cell apart if the canvas is large enough.
    gap_down = min(1, (rows - len(lines) * cells) // (len(lines) - 1)) if len(lines) > 1 else 0
    gap_across = min(1, (columns - max(lines) * cells) // (max(lines) - 1)) if max(lines) > 1 else 0
    height = len(lines) * cells + (len(lines) - 1) * gap_down
    width = max(lines) * cells + (max(lines) - 1) * gap_across
    top, left = _free(rows - height, pick, 1), _free(columns - width, pick, 0)
    boxes = []
    for i, several in enumerate(lines):
        own = several * cells + (several - 1) * gap_across
        start = left + (width - own) // 2
        boxes += [Box(top + i * (cells + gap_down), start + j * (cells + gap_across), cells) for j in range(several)]
    if lines == [2] and 0 < top < rows - height:
        # The second of two objects side by side can be one row higher or lower than the first.
        second = boxes[1]
        boxes[1] = Box(second.row + pick(2, 3) - 1, second.column, cells)
    return boxes


def _in_front(rows: int, columns: int, pick: Pick) -> list[Box]:
    """Return the squares of two overlapping objects: the front one, which is lower, then the one behind it."""
    short = min(rows, columns)
    cells = min(USUAL, short - 1)
    lower = min(FRONT_OFFSET, cells - 1, rows - cells)
    top, left = _free(rows - cells - lower, pick, 1), _free(columns - cells, pick, 0)
    across = left + 2 * (pick(2, 3) - 1)
    return [Box(top + lower, max(0, min(columns - cells, across)), cells), Box(top, left, cells)]
