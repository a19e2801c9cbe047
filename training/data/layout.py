"""Where things stand: squares of whole cells, a cell being what one token of the model covers.

A thing that always begins at a cell has one appearance to learn instead of a thousand; and one that is as large alone
as among others has one instead of two. (When what stood alone was eight cells wide, it stayed a blob long after all
else had been learned: LOG.md, 2026-11-27.) A big thing fits on every canvas, so it is as large on all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

#: Largest sides of things in cells: of a small one, of any of which no size is said, of a big one.
SMALL, USUAL, BIG = 3, 5, 7
#: Positions of the same things along an axis, at most. Which one it is has to be heard from the mean of a canvas of
#: noise, and where that is between two, a thing is painted in both, half each.
POSITIONS = 3
#: Rows by which what stands in front is lower than what is behind it, at most.
LOWER = 3
#: Given an axis (0 across, 1 down, 2 of the second thing) and a number of choices, picks one.
Pick = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Box:
    """A square of cells."""

    row: int
    column: int
    cells: int


def arranged(rows: int, columns: int, count: int, relation: str | None, size: str | None, pick: Pick) -> list[Box]:
    """Return the squares of `count` things on a canvas of rows x columns cells, in reading order or as the relation
    says: the first left of, above, or in front of the second.

    pick: decides what is left open.
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
    """Return one of up to `POSITIONS` in the middle of `room` free cells, so many cells apart if there is room."""
    choices = min(room + 1, POSITIONS)
    apart = max(1, min(apart, room // max(1, choices - 1)))
    return (room - (choices - 1) * apart) // 2 + apart * pick(axis, choices)


def _in_lines(rows: int, columns: int, lines: list[int], pick: Pick) -> list[Box]:
    """Return as many squares a line as `lines` says, the lines below one another, each line in the middle."""
    cells = min(USUAL, rows // len(lines), columns // max(lines))
    # A free cell between lines, and between neighbours, where there is room for it.
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
        # Two side by side need not stand on one line.
        second = boxes[1]
        boxes[1] = Box(second.row + pick(2, 3) - 1, second.column, cells)
    return boxes


def _in_front(rows: int, columns: int, pick: Pick) -> list[Box]:
    """Return the front square, over a lower part of the other, and the other behind it."""
    short = min(rows, columns)
    cells = min(USUAL, short - 1)
    lower = min(LOWER, cells - 1, rows - cells)
    top, left = _free(rows - cells - lower, pick, 1), _free(columns - cells, pick, 0)
    across = left + 2 * (pick(2, 3) - 1)
    return [Box(top + lower, max(0, min(columns - cells, across)), cells), Box(top, left, cells)]
