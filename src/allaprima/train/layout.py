"""Where things stand: squares of whole cells, a cell being what one token of the model covers.

A thing that always begins at a cell has one appearance to learn instead of a thousand.
"""

from collections.abc import Callable
from dataclasses import dataclass

#: Largest sides in cells: of one thing alone, of one among several, of a big one.
SINGLE, SEVERAL, BIG = 8, 5, 11
#: Given an axis (0 across, 1 down, 2 of the second thing) and a number of choices, picks one.
Pick = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Box:
    """A square of cells."""

    row: int
    column: int
    cells: int


def arranged(
    rows: int, columns: int, count: int, relation: str | None, size: str | None, *, is_upright: bool, pick: Pick
) -> list[Box]:
    """Return the squares of `count` things on a canvas of rows x columns cells, in reading order or as the relation
    says: the first left of, above, or in front of the second.

    is_upright: whether three in a triangle have one above two or two above one. pick: decides what is left open.
    """
    short = min(rows, columns)
    alone = SINGLE if short > SINGLE else min(SEVERAL, short - 1)
    if count == 1:
        cells = {None: alone, "small": min(SEVERAL, alone - 2), "big": min(BIG, short)}[size]
        return [Box(_free(rows - cells, pick, 1), _free(columns - cells, pick, 0), cells)]
    if relation == "front":
        return _in_front(rows, columns, alone, pick)
    if relation == "above":
        lines = [1, 1]
    elif relation == "left" or columns >= count * SEVERAL or rows < 2 * SEVERAL - 2:
        lines = [count]
    elif rows >= count * SEVERAL:
        lines = [1] * count
    elif count == 3:
        lines = [1, 2] if is_upright else [2, 1]
    else:
        lines = [2] * (count // 2)
    return _in_lines(rows, columns, lines, pick)


def _free(room: int, pick: Pick, axis: int, most: int = 5) -> int:
    """Return one of up to `most` places in the middle of `room` free cells."""
    choices = min(room + 1, most)
    return (room + 1 - choices) // 2 + pick(axis, choices)


def _in_lines(rows: int, columns: int, lines: list[int], pick: Pick) -> list[Box]:
    """Return as many squares a line as `lines` says, the lines below one another, each line in the middle."""
    cells = min(SEVERAL, rows // len(lines), columns // max(lines))
    # A free cell between lines, and between neighbours, where there is room for it.
    gap_down = min(1, (rows - len(lines) * cells) // (len(lines) - 1)) if len(lines) > 1 else 0
    gap_across = min(1, (columns - max(lines) * cells) // (max(lines) - 1)) if max(lines) > 1 else 0
    height = len(lines) * cells + (len(lines) - 1) * gap_down
    width = max(lines) * cells + (max(lines) - 1) * gap_across
    top, left = _free(rows - height, pick, 1, 3), _free(columns - width, pick, 0, 3)
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


def _in_front(rows: int, columns: int, alone: int, pick: Pick) -> list[Box]:
    """Return the front square, over the lower edge of the other, and the other behind it."""
    cells = SEVERAL if alone > SEVERAL else max(2, alone - 2)
    top, left = _free(rows - alone - 1, pick, 1, 3), _free(columns - alone, pick, 0, 3)
    across = (alone - cells) // 2 + 2 * (pick(2, 3) - 1)
    return [Box(top + alone + 1 - cells, max(0, min(columns - cells, left + across)), cells), Box(top, left, alone)]
