"""Layout of objects on canvases."""

import itertools

import pytest

from training.data.layout import arrange

GRIDS = [(12, 12), (10, 14), (14, 10), (9, 16), (16, 9), (7, 20), (20, 7)]
PICKS = list(itertools.product((0, 1, 2), repeat=3))


def boxes(grid, count, relation=None, size=None, share=(1, 1, 1)):
    """Return the squares of a layout. The choice on an axis is 0 (first), 1 (middle) or 2 (last position)."""

    def pick(axis, choices):
        return (choices - 1) * share[axis] // 2

    return arrange(*grid, count, relation, size, pick)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_objects_are_inside_canvas_and_do_not_overlap(grid, count):
    for share in PICKS:
        found = boxes(grid, count, share=share)
        assert len(found) == count
        cells = [
            (row, column)
            for box in found
            for row in range(box.row, box.row + box.cells)
            for column in range(box.column, box.column + box.cells)
        ]
        assert len(set(cells)) == len(cells)
        assert all(0 <= row < grid[0] and 0 <= column < grid[1] for row, column in cells)


@pytest.mark.parametrize("grid", GRIDS)
def test_left_and_above_hold_for_all_choices(grid):
    for share in PICKS:
        first, second = boxes(grid, 2, "left", share=share)
        assert first.column + first.cells <= second.column
        assert abs(first.row - second.row) <= 1
        first, second = boxes(grid, 2, "above", share=share)
        assert first.row + first.cells <= second.row
        assert first.column == second.column


@pytest.mark.parametrize("grid", GRIDS)
def test_front_object_covers_lower_part_of_back_object(grid):
    for share in PICKS:
        front, behind = boxes(grid, 2, "front", share=share)
        assert front.cells == behind.cells
        assert abs(front.column - behind.column) < behind.cells
        assert front.row < behind.row + behind.cells < front.row + front.cells
        assert front.row + front.cells <= grid[0]
        assert 0 <= front.column <= grid[1] - front.cells


@pytest.mark.parametrize("grid", GRIDS)
def test_small_and_big_objects_differ_from_usual_size(grid):
    (small,), (usual,), (big,) = (boxes(grid, 1, size=size) for size in ("small", None, "big"))
    assert small.cells < usual.cells < big.cells <= min(grid)


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid[1] >= 10])
def test_object_size_does_not_depend_on_second_object(grid):
    (alone,) = boxes(grid, 1)
    assert {box.cells for box in boxes(grid, 2, "left")} == {alone.cells}


def test_choices_move_single_object():
    places = {tuple(boxes((12, 12), 1, share=share)) for share in PICKS}
    assert len(places) == 9


def test_single_object_has_three_positions_per_axis():
    found = [boxes((12, 12), 1, share=(share, share, 1))[0] for share in (0, 1, 2)]
    assert [(box.row, box.column) for box in found] == [(1, 1), (3, 3), (5, 5)]


def test_three_objects_form_triangle():
    above, *below = boxes((12, 12), 3)
    assert [box.row for box in below] == [above.row + above.cells + 1] * 2
    assert below[0].column < above.column < below[1].column
