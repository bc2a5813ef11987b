"""Numbers that change while training: straight lines between points."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i.schedule import at, problem, values

NUMBERS = st.floats(-1e6, 1e6)
KIMG = st.floats(0, 1e6)


@st.composite
def schedules(draw) -> list[list[float]]:
    """A list of points in order, at least a thousandth of a kimg apart."""
    kimg = sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=6)))
    return [[k / 1000, draw(NUMBERS)] for k in kimg]


def test_by_hand():
    fall = [[10, 4.0], [30, 2], [40, 8]]
    assert [at(fall, kimg) for kimg in (0, 10, 15, 20, 30, 35, 40, 1e9)] == [4, 4, 3.5, 3, 2, 5, 8, 8]
    assert at(0.25, 7) == 0.25
    assert isinstance(at(3, 0), float)
    assert isinstance(at([[0, 3]], 0), float)
    assert [at([[5, 7]], kimg) for kimg in (0, 5, 9)] == [7, 7, 7]
    assert values(fall) == [4, 2, 8]
    assert values(0.5) == [0.5]


@given(NUMBERS, KIMG)
def test_a_number_is_always_itself(number, kimg):
    assert at(number, kimg) == number
    assert values(number) == [number]
    assert problem(number) == ""


@given(schedules(), KIMG)
def test_between_its_points_it_is_on_the_line(points, kimg):
    assert problem(points) == ""
    found = at(points, kimg)
    assert min(values(points)) - 1e-9 <= found <= max(values(points)) + 1e-9
    before = [p for p in points if p[0] <= kimg]
    after = [p for p in points if p[0] > kimg]
    if not before or not after:
        assert found == (before or after)[-1 if before else 0][1]
    else:
        (a, x), (b, y) = before[-1], after[0]
        share = (kimg - a) / (b - a)
        assert found == pytest.approx((1 - share) * x + share * y, rel=1e-6, abs=1e-3)


@given(schedules())
def test_at_its_points_it_is_their_value(points):
    assert [at(points, kimg) for kimg, _ in points] == [value for _, value in points]


@given(schedules(), st.floats(0, 1))
def test_a_point_on_its_line_changes_nothing(points, share):
    if len(points) > 1:
        (a, x), (b, y) = points[:2]
        middle = [a + share * (b - a), x + share * (y - x)]
        if a < middle[0] < b:
            more = [points[0], middle, *points[1:]]
            for kimg in (a, (a + middle[0]) / 2, middle[0], (middle[0] + b) / 2, b):
                assert at(more, kimg) == pytest.approx(at(points, kimg), rel=1e-6, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "[[kimg, value], ...]"),
        ("low", "[[kimg, value], ...]"),
        (None, "a number"),
        (True, "a number"),
        ([1, 2], "[[kimg, value], ...]"),
        ([[1, 2, 3]], "[[kimg, value], ...]"),
        ([[1]], "[[kimg, value], ...]"),
        ([[0, "low"]], "[[kimg, value], ...]"),
        ([[0, True]], "[[kimg, value], ...]"),
        ([[0, math.nan]], "[[kimg, value], ...]"),
        (math.inf, "a number"),
        (math.nan, "a number"),
        ([[0, 1], [0, 2]], "must rise"),
        ([[0, 1], [5, 2], [4, 3]], "must rise"),
    ],
)
def test_what_is_no_schedule(wrong, said):
    assert said in problem(wrong)
    assert "\n" not in problem(wrong)
