"""StyleGAN3 against its published form, convolutions over zero-stuffed pictures; and its memory against StyleGAN2's."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.benchmark.networks import build_pair, fakes
from t2i.benchmark.timing import kept, seconds
from t2i.config import Config
from t2i.files import end_with_parent
from t2i.interfaces import Text
from t2i.log import memory_gb
from t2i.nets.generators import stylegan3
from t2i.nets.layers import ops
from t2i.rng import Rng

CHANNELS = 64  # of sentences
FORMS = {"": "", "published form": ".2f", "ours": ".2f", "ratio": ".2f"}
MEMORY = {"GB": "", "G update": ".2f", "and R1": ".2f", "ratio": ".2f"}


# ---- the published form


def zero_stuffed(x: Tensor, f: Tensor | None, up: int = 1, down: int = 1, padding: Any = 0, gain: float = 1) -> Tensor:
    """ops.upfirdn2d in the published reference form: zeros put in, padding or cropping, convolution, every d-th."""
    f = (torch.ones(1, 1, device=x.device) if f is None else f) * 1.0
    b, c, h, w = x.shape
    x0, x1, y0, y1 = ops._padding(padding)
    x = F.pad(x.reshape(b, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(b, c, h * up, w * up)
    x = F.pad(x, [x0, x1, y0, y1])
    f = (f * gain ** (f.ndim / 2)).flip(list(range(f.ndim))).to(x.dtype)
    for kernel in (f,) if f.ndim == 2 else (f[None, :], f[:, None]):
        x = F.conv2d(x, kernel.repeat(c, 1, 1, 1), groups=c)
    return x[:, :, ::down, ::down]


def published_lrelu(
    x: Tensor, fu: Any, fd: Any, b: Any, up: int, down: int, padding: Any, gain: float = math.sqrt(2),
    slope: float = 0.2, clamp: float | None = None,
) -> Tensor:  # fmt: skip
    x = zero_stuffed(x, fu, up=up, padding=padding, gain=up**2)
    x = F.leaky_relu(x, slope) * gain
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return zero_stuffed(x, fd, down=down)


def published_conv(
    x: Tensor, w: Tensor, styles: Tensor, demodulate: bool = True, padding: int = 0, input_gain: Any = 1.0,
    bias: Any = None,
) -> Tensor:  # fmt: skip
    """Weights for every sample, and one grouped convolution."""
    if demodulate:
        w = w * w.square().mean((1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
    w = w * styles[:, None, :, None, None]  # [B, O, I, k, k]
    if demodulate:
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    b, i, height, width = x.shape
    w = (w * input_gain).flatten(0, 1).to(x.dtype)
    x = F.conv2d(x.reshape(1, b * i, height, width), w, padding=padding, groups=b)
    return x.reshape(b, -1, *x.shape[2:]) + bias[:, None, None]


@contextmanager
def published_form() -> Iterator[None]:
    ours = stylegan3.filtered_lrelu, ops.stylegan3_modulated_conv2d
    stylegan3.filtered_lrelu, ops.stylegan3_modulated_conv2d = published_lrelu, published_conv  # type: ignore
    try:
        yield
    finally:
        stylegan3.filtered_lrelu, ops.stylegan3_modulated_conv2d = ours


# ---- time


def compare(settings: Config, batch: int, repeat: int, device: torch.device) -> list[dict[str, Any]]:
    """Rows of published form, ours and the ratio."""
    theirs, ours = (apart(measure, published, settings, batch, repeat, device) for published in (True, False))
    rows = {
        "G forward": "seconds", "G step": "seconds", "peak": "GB, whole process", "kept": "GB, by G for backward",
    }  # fmt: skip
    found: list[dict[str, Any]] = [
        {"": f"{k} ({unit})", "published form": theirs[k], "ours": ours[k], "ratio": ours[k] / theirs[k]}
        for k, unit in rows.items()
    ]
    difference = float((ours["picture"] - theirs["picture"]).abs().max())
    return [*found, {"": "largest difference of a pixel", "ours": f"{difference:.1e}"}]


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result in a process of its own, for its own peak of memory."""
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def measure(published: bool, settings: Config, batch: int, repeat: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a generator's forward pass and update, peak memory in GB, and a picture, to be compared."""
    torch.set_num_threads(1)
    G, D = build_pair(settings, CHANNELS, device, torch.contiguous_format if published else torch.channels_last)
    text = sentences(batch, device)

    @torch.no_grad()
    def forward() -> Tensor:
        return fakes(G, text, Rng(0, device=device))[1].image

    def step() -> None:
        update(G, D, text)
        G.zero_grad()

    def run() -> dict[str, Any]:
        found: dict[str, Any] = {"G forward": seconds(forward, repeat, device), "picture": forward().cpu()}
        found["G step"] = seconds(step, repeat, device)
        found["kept"] = kept(lambda: fakes(G, text, Rng(0, device=device))[1].image) / 2**30
        found["peak"] = memory_gb(device)
        return found

    if published:
        with published_form():
            return run()
    return run()


def sentences(batch: int, device: torch.device) -> Text:
    """Random ones."""
    sentence = F.normalize(torch.randn(batch, CHANNELS)).to(device)
    return Text(sentence, sentence[:, None], torch.ones(batch, 1, dtype=torch.bool, device=device))


def update(G: Any, D: Any, text: Text) -> None:
    """The generator's gradients of the adversarial game."""
    D.requires_grad_(False)
    F.softplus(-D(fakes(G, text, Rng(0, device=text.sentence.device))[1].image, text).logit).mean().backward()
    D.requires_grad_(True)


# ---- memory


def compare_memory(forms: dict[str, Config], batch: int, device: torch.device) -> list[dict[str, Any]]:
    """Rows of peak memory by name of a form; ratio: of the larger to that of the first."""
    rows: list[dict[str, Any]] = []
    for name, settings in forms.items():
        generator, both = apart(update_peak, settings, batch, device)
        first = rows[0]["and R1"] if rows else both
        rows.append({"GB": name, "G update": generator, "and R1": both, "ratio": both / first})
    return rows


def update_peak(settings: Config, batch: int, device: torch.device) -> tuple[float, float]:
    """GB that the generator's gradients need at most, and those with R1's, beyond the weights."""
    torch.set_num_threads(1)
    G, D = build_pair(settings, CHANNELS, device, torch.channels_last)
    text = sentences(batch, device)
    start = memory_gb(device)
    update(G, D, text)
    generator = memory_gb(device) - start
    size = settings.model.resolution
    image = torch.rand(batch, 3, size, size, device=device, requires_grad=True)
    (slope,) = torch.autograd.grad(D(image, text).logit.sum(), image, create_graph=True)
    slope.square().sum().backward()
    return generator, memory_gb(device) - start
