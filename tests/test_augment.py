"""ADA: every operation against what it should do by hand, its gates, its gradients, its controller."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2i.augment import SYM6, adjust, augment
from t2i.rng import Rng

SHUT, OPEN = 0.999, 0.0  # draws that keep and let through a gate of p = 0.5
ALL = "bgcfno"


class Script:
    """Random numbers read from a list: each operation draws its value, then its gate."""

    device = torch.device("cpu")

    def __init__(self, *numbers: float):
        self.numbers = list(numbers)

    def rand(self, batch: int, *shape: int) -> torch.Tensor:
        return torch.full((batch, *shape), self.numbers.pop(0))

    randn = rand


def only(operation: int, draws: list[float], *silent: int) -> Script:
    """Lets one operation of a group through with its draws; the others draw `silent[i]` values, then a shut gate."""
    numbers: list[float] = []
    for i, values in enumerate(silent):
        numbers += [*draws, OPEN] if i == operation else [0.5] * values + [SHUT]
    return Script(*numbers)


def pictures(batch: int, size: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


# ---- the controller


def test_adjust_by_hand():
    # 4 steps of 32 pictures at 500 kimg from 0 to 1: 128 / 500000.
    assert adjust(0.1, 0.8, 32, 4) == pytest.approx(0.100256)
    assert adjust(0.1, 0.5, 32, 4) == pytest.approx(0.099744)
    assert adjust(0.1, 0.6, 32, 4) == 0.1
    assert adjust(0.1, 0.5, 100, 10, target=0.4, speed_kimg=10) == pytest.approx(0.2)
    assert adjust(0.9999, 1.0, 32, 4) == 1.0
    assert adjust(0.0001, -1.0, 32, 4) == 0.0


@given(st.floats(0, 1), st.floats(-1, 1), st.integers(1, 4096), st.floats(0.001, 1000))
def test_adjust_stays_a_probability(p, sign, batch, speed):
    assert 0 <= adjust(p, sign, batch, 4, speed_kimg=speed) <= 1


# ---- nothing


def test_p_zero_is_the_identity():
    x = pictures(2, 16)
    assert augment(x, 0.0, Script(), ALL) is x


def test_shut_gates_change_nothing():
    x = pictures(4, 16)
    assert torch.equal(augment(x, 1e-12, Rng(0), "b"), x)
    # Through up- and downsampling, colour and filter matrices: only rounding.
    torch.testing.assert_close(augment(x, 1e-12, Rng(0), ALL), x, atol=1e-5, rtol=0)
    x = x.double()
    torch.testing.assert_close(augment(x, 1e-12, Rng(0), ALL), x, atol=1e-6, rtol=0)  # angles come from float32


def test_sym6_is_an_orthogonal_low_pass_filter():
    assert sum(SYM6) == pytest.approx(math.sqrt(2))
    products = np.correlate(SYM6, SYM6, "full")[11::2]  # with itself shifted by 0, 2, 4, ...
    np.testing.assert_allclose(products, [1, 0, 0, 0, 0, 0], atol=1e-11)
    k = np.arange(12)
    assert all(abs(((-1.0) ** k * k**n * SYM6).sum()) < 1e-8 for n in range(6))  # six vanishing moments


# ---- b: exact moves of pixels


def moves(picture: np.ndarray) -> dict[bytes, tuple[int, int, int, int]]:
    """Every picture that blitting may make of one [3, 16, 16], and how: (mirror, quarter turns, shift y, shift x)."""
    table = {}
    for mirror in range(2):
        for turns in range(4):
            turned = np.rot90(picture[:, :, ::-1] if mirror else picture, turns, (1, 2))
            wide = np.pad(turned, ((0, 0), (2, 2), (2, 2)), mode="reflect")
            for y in range(-2, 3):
                for x in range(-2, 3):
                    moved = wide[:, 2 - y : 18 - y, 2 - x : 18 - x]
                    table[np.ascontiguousarray(moved).tobytes()] = (mirror, turns, y, x)
    return table


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_blitting_moves_whole_pixels_as_often_as_it_should(p):
    x = pictures(1, 16)
    table, n = moves(x[0].numpy()), 4000
    found = [table[y.numpy().tobytes()] for y in augment(x.repeat(n, 1, 1, 1), p, Rng(0), "b")]
    mirror, turns, dy, dx = np.array(found).T

    def share(events: np.ndarray, expected: float) -> None:
        assert events.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))

    share(mirror == 1, p / 2)
    for k in (1, 2, 3):
        share(turns == k, p / 4)
    share((dy == 0) & (dx == 0), 1 - p + p / 16)  # round(U(-2, 2)) is 0 a quarter of the time, 2 an eighth
    share(dx == 2, p / 8)
    share(dy == -1, p / 4)


def test_mirror_alone():
    x = pictures(2, 16)
    assert torch.equal(augment(x, 0.5, only(0, [0.9], 1, 1, 2), "b"), x.flip(3))


def test_quarter_turn_alone():
    x = pictures(2, 16)
    for k in range(4):
        assert torch.equal(augment(x, 0.5, only(1, [k / 4], 1, 1, 2), "b"), x.rot90(-k, (2, 3)))


def test_shift_alone():
    x = pictures(2, 16)
    y = augment(x, 0.5, only(2, [1.0, 0.25], 1, 1, 2), "b")  # 2 to the right, 1 up
    assert torch.equal(y[:, :, :-1, 2:], x[:, :, 1:, :-2])
    assert torch.equal(y[:, :, :-1, :2], x[:, :, 1:, 1:3].flip(3))  # reflected about the first column


# ---- g: a ramp's value tells where a pixel came from; sym6 keeps ramps


def ramp(size: int = 64) -> torch.Tensor:
    """[1, 3, H, W] float64: channel 0 holds a pixel's x, channel 1 its y, from the centre, in pixels."""
    x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2).expand(size, size)
    return torch.stack([x, x.T, torch.zeros_like(x)])[None]


@pytest.mark.parametrize(
    ("operation", "draws", "source"),
    [
        (0, [5.0], [[1 / 2, 0, 0], [0, 1 / 2, 0]]),  # 2^(0.2·5): twice as large
        (1, [0.75], [[0, 1, 0], [-1, 0, 0]]),  # 0.75 → π/2
        (1, [2 / 3], [[0.5, math.sqrt(0.75), 0], [-math.sqrt(0.75), 0.5, 0]]),  # 2/3 → π/3
        (2, [5.0], [[1 / 2, 0, 0], [0, 2, 0]]),  # twice as wide, half as high
        (3, [0.75], [[0, 1, 0], [-1, 0, 0]]),
        (4, [1.0, -0.5], [[1, 0, -8], [0, 1, 4]]),  # 0.125·64 to the right, half of it up
    ],
)
def test_geometry_alone(operation, draws, source):
    x = ramp()
    script = only(operation, draws, 1, 1, 1, 1, 2)
    y = augment(x, 0.5, script, "g")[0, :2, 20:44, 20:44]
    position = torch.cat([x[0, :2], torch.ones(1, 64, 64)])[:, 20:44, 20:44]
    expected = torch.einsum("ij,jyx->iyx", torch.tensor(source, dtype=torch.float64), position)
    torch.testing.assert_close(y, expected, atol=2e-5, rtol=0)


def test_geometry_order():
    """Twice as large, turned by π/2, made twice as wide and half as high, shifted by (8, -4): undone backwards."""
    x = ramp()
    script = Script(5.0, OPEN, 0.75, OPEN, 5.0, OPEN, 0.5, SHUT, 1.0, -0.5, OPEN)
    y = augment(x, 0.5, script, "g")[0, :2, 24:40, 24:40]
    expected = torch.stack([(x[0, 1] + 4) * 2 / 2, -(x[0, 0] - 8) / 2 / 2])[:, 24:40, 24:40]
    torch.testing.assert_close(y, expected, atol=2e-5, rtol=0)


def test_mirror_and_turn_through_the_filters_stay_in_place():
    """Blitting in one go with geometry is filtered, but nothing moves: smooth pictures come out as moved exactly."""
    x = torch.nn.functional.interpolate(pictures(4, 12, dtype=torch.float64), 64, mode="bicubic")
    shut = [0.5, SHUT] * 4 + [0.5, 0.5, SHUT]
    y = augment(x, 0.5, Script(0.9, OPEN, 0.25, OPEN, 0.5, 0.5, SHUT, *shut), "bg")
    difference = (y - x.flip(3).rot90(-1, (2, 3))).abs()
    assert difference.mean() < 0.005
    assert difference.max() < 0.1


def test_far_zoom_out_shows_only_the_picture():
    """The picture is continued by reflection without end: no border of another colour, however small it gets."""
    y = augment(torch.full((1, 3, 16, 16), 0.7), 0.5, only(0, [-15.0], 1, 1, 1, 1, 2), "g")  # an eighth of the size
    torch.testing.assert_close(y, torch.full_like(y, 0.7))


# ---- c


@pytest.mark.parametrize(
    ("operation", "draw", "colour", "expected"),
    [
        (0, 1.0, (0.1, -0.3, 0.5), (0.3, -0.1, 0.7)),  # brightness + 0.2
        (1, 2.0, (0.1, -0.3, 0.5), (0.2, -0.6, 1.0)),  # contrast × 2^(0.5·2)
        (2, 0.9, (0.6, 0.0, 0.0), (0.2, -0.4, -0.4)),  # minus twice the mean
        (2, 0.1, (0.6, 0.0, 0.0), (0.6, 0.0, 0.0)),  # half of the time the flip is none
        (3, 5 / 6, (0.6, 0.3, -0.1), (-0.1, 0.6, 0.3)),  # hue by 2π/3: red → green → blue → red
        (3, 1.0, (0.6, 0.0, 0.0), (-0.2, 0.4, 0.4)),  # hue by π: red → cyan
        (4, 1.0, (0.6, 0.0, 0.0), (1.0, -0.2, -0.2)),  # saturation × 2 about the mean 0.2
        (4, 1.0, (0.4, 0.4, 0.4), (0.4, 0.4, 0.4)),  # grey has none
    ],
)
def test_colour_alone(operation, draw, colour, expected):
    x = torch.tensor(colour)[None, :, None, None].expand(2, 3, 16, 16)
    y = augment(x, 0.5, only(operation, [draw], 1, 1, 1, 1, 1), "c")
    torch.testing.assert_close(y, torch.tensor(expected)[None, :, None, None].expand_as(x))


def test_colour_order():
    """Brightness, contrast, hue: (0.1 + 0.2)·2 in red becomes green."""
    x = torch.tensor([0.1, -0.2, -0.2])[None, :, None, None].expand(1, 3, 16, 16)
    y = augment(x, 0.5, Script(1.0, OPEN, 2.0, OPEN, 0.5, SHUT, 5 / 6, OPEN, 0.5, SHUT), "c")
    torch.testing.assert_close(y[0, :, 0, 0], torch.tensor([0.0, 0.6, 0.0]), atol=1e-6, rtol=0)


# ---- f, n, o


@pytest.mark.parametrize("size", [16, 64])  # 16 is smaller than the filter
def test_filter_amplifies_bands(size):
    """Twice the lowest band, at constant expected power: gains 2 and 1 over √(43/13), along each of the two axes."""
    checks = (torch.arange(size)[:, None] + torch.arange(size)) % 2 * 2.0 - 1  # all in the highest band
    x = torch.stack([torch.full((size, size), 0.5), checks, torch.zeros(size, size)])[None]
    y = augment(x, 0.5, only(0, [1.0], 1, 1, 1, 1), "f")
    torch.testing.assert_close(y[0, 0], x[0, 0] * 4 * 13 / 43)
    torch.testing.assert_close(y[0, 1], x[0, 1] * 13 / 43)


def test_noise_has_its_variance():
    class Noise(Script):
        """The values of the script for the strength and its gate, true noise after them."""

        def randn(self, batch: int, *shape: int) -> torch.Tensor:
            return Rng(0).randn(batch, *shape) if shape else super().rand(batch)

    y = augment(torch.zeros(4, 3, 64, 64), 0.5, Noise(-2.0, OPEN), "n")
    assert float(y.std()) == pytest.approx(0.2, rel=0.02)
    assert float(y.mean()) == pytest.approx(0, abs=0.01)


def test_cutout_covers_a_quarter():
    x = torch.ones(2, 3, 64, 64)
    expected = x.clone()
    expected[:, :, 16:48, 16:48] = 0
    assert torch.equal(augment(x, 0.5, Script(OPEN, 0.5, 0.5), "o"), expected)
    corner = augment(x, 0.5, Script(OPEN, 0.0, 0.0), "o")
    assert corner.sum() == x.sum() * 15 / 16


@pytest.mark.parametrize(
    ("ops", "unchanged"),
    [
        ("g", 0.5**3 * 0.5),  # the two rotations together are shut with probability 1 - p
        ("c", 0.5**4 * 0.75),  # half of the luma flips that are let through do nothing
        ("f", 0.5**4),
        ("n", 0.5),
        ("o", 0.5),
    ],
)
def test_gates_open_with_probability_p(ops, unchanged):
    n = 3000
    x = pictures(1, 8).repeat(n, 1, 1, 1)
    same = ((augment(x, 0.5, Rng(1), ops) - x).abs().amax((1, 2, 3)) < 1e-5).float().mean()
    assert float(same) == pytest.approx(unchanged, abs=4 * math.sqrt(unchanged * (1 - unchanged) / n))


# ---- all of it


def test_two_processes_draw_what_one_draws():
    x = pictures(6, 16)
    whole = augment(x, 0.7, Rng(3, 5), ALL)
    for rank in range(2):
        part = augment(x[rank::2], 0.7, Rng(3, 5, rank=rank, world=2), ALL)
        torch.testing.assert_close(part, whole[rank::2], atol=1e-5, rtol=0)
    assert not torch.allclose(whole, augment(x, 0.7, Rng(3, 6), ALL))


def test_twice_differentiable():
    x = pictures(2, 6, dtype=torch.float64).requires_grad_()
    f = lambda x: augment(x, 0.9, Rng(4), ALL).tanh()  # curved, so that the second derivative is not zero
    assert torch.autograd.gradcheck(f, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, 1.0, Rng(4), "b").tanh(), x, fast_mode=True)


def test_gradient_reaches_every_picture():
    x = pictures(8, 16).requires_grad_()
    augment(x, 1.0, Rng(0), "bgcfn").square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum((1, 2, 3)) > 0).all()


def test_precision():
    x = pictures(4, 16)
    expected = augment(x, 0.8, Rng(0), ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(x, 0.8, Rng(0), ALL), expected)
    half = augment(x.bfloat16(), 0.8, Rng(0), ALL)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)
