"""Layout of objects on a canvas: squares of whole cells. A cell is the area of one token of the model.

Objects are aligned to cells so that the model learns one appearance of each instead of one for every offset. An object
has the same size whether it is alone or one of several, again to keep the number of appearances small: when single
objects were eight cells wide, they stayed blobs long after all else was learned (LOG.md, 2026-11-27). A big object fits
on every canvas, so its size is the same on all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

#: Largest side in cells of a small object, of one whose size is not given, and of a big one.
SMALL, USUAL, BIG = 3, 5, 7
#: Most positions that the free factors choose from along an axis. The model infers the choice from the means of the
#: noise; where a mean lies between two choices, it draws half of the object at each, so there are few.
POSITIONS = 3
#: Most rows by which the front object is lower than the one behind it.
FRONT_OFFSET = 3
#: Given an axis (0 across, 1 down, 2 of the second object) and a number of choices, returns the index of one.
Pick = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Box:
    """A square of cells: its upper left cell and its side."""

    row: int
    column: int
    cells: int


def arrange(rows: int, columns: int, count: int, relation: str | None, size: str | None, pick: Pick) -> list[Box]:
    """Return the squares of `count` objects on a canvas of rows x columns cells, in reading order.

    relation: "left", "above" or "front", of the first object to the second; None: side by side or in lines.
    size: "small" or "big", of a single object. pick: makes the choices that a prompt leaves open.
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
    """Return one of up to `POSITIONS` offsets in the middle of `room` free cells, `apart` cells from one another."""
    choices = min(room + 1, POSITIONS)
    apart = max(1, min(apart, room // max(1, choices - 1)))
    return (room - (choices - 1) * apart) // 2 + apart * pick(axis, choices)


def _in_lines(rows: int, columns: int, lines: list[int], pick: Pick) -> list[Box]:
    """Return the squares of several centred lines. lines: number of squares of each line, from the top."""
    cells = min(USUAL, rows // len(lines), columns // max(lines))
    # One free cell between lines, and between neighbours, if there is room.
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
        # Of two objects side by side the second may be one row higher or lower.
        second = boxes[1]
        boxes[1] = Box(second.row + pick(2, 3) - 1, second.column, cells)
    return boxes


def _in_front(rows: int, columns: int, pick: Pick) -> list[Box]:
    """Return the front square, which covers a lower part of the other, and the one behind it."""
    short = min(rows, columns)
    cells = min(USUAL, short - 1)
    lower = min(FRONT_OFFSET, cells - 1, rows - cells)
    top, left = _free(rows - cells - lower, pick, 1), _free(columns - cells, pick, 0)
    across = left + 2 * (pick(2, 3) - 1)
    return [Box(top + lower, max(0, min(columns - cells, across)), cells), Box(top, left, cells)]
