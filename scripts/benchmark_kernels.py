"""Times what is computed here in a form of its own against the plain form, and compares the memory.

    python scripts/benchmark_kernels.py attention     fused attention against plain mathematics, over sequence lengths
    python scripts/benchmark_kernels.py stylegan3     StyleGAN3-T at 64×64, channels halved, batch 2, against the
                                                      published form: convolutions over zero-stuffed pictures
    python scripts/benchmark_kernels.py memory        peak memory of an update of StyleGAN3-T at 256×256, channels
                                                      halved, against StyleGAN2's

On a CPU time is this process's own, with one thread, so that other programs count little. Compare ratios of one run.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i import config as configuration
from t2i.errors import run_command
from t2i.interfaces import Text
from t2i.log import memory_gb
from t2i.model import backbone
from t2i.nets.generators import stylegan3
from t2i.nets.layers import ops
from t2i.nets.layers.attention import attention


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", choices=["attention", "stylegan3", "memory"])
    add("--batch", type=int, default=2)
    add("--repeat", type=int, default=3, help="the median of so many runs (default %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", default="float32", choices=["float32", "bfloat16"], help="of attention")
    add("--lengths", type=int, nargs="+", default=[64, 256, 1024, 4096], help="of attention's sequences")
    add("--heads", type=int, default=4, help="of 64 channels each")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of StyleGAN3; repeatable")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    torch.set_num_threads(1)
    print(f"device {torch.cuda.get_device_name() if a.device == 'cuda' else 'cpu'}, torch {torch.__version__}")
    {"attention": compare_attention, "stylegan3": compare_stylegan3, "memory": compare_memory}[a.what](a)


def seconds(function: Callable[[], Any], repeat: int, device: str) -> float:
    """Median of `repeat` calls after one to warm up."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    for _ in range(repeat + 1):
        start = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times[1:])


# ---- attention


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    logits = q @ k.mT * q.shape[-1] ** -0.5
    p = logits.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
    return (p @ v).transpose(1, 2)


def compare_attention(a: argparse.Namespace) -> None:
    """Forward and backward; and a gradient penalty, which differentiates twice."""
    print(f"{'length':>7}{'form':>8}{'forward':>10}{'+backward':>11}{'penalty':>10}{'MB kept':>9}{'error':>10}")
    for length in a.lengths:
        shape = (a.batch, length, a.heads, 64)
        torch.manual_seed(0)
        q, k, v = (torch.randn(shape, device=a.device).to(getattr(torch, a.dtype)).requires_grad_() for _ in range(3))
        mask = torch.arange(length, device=a.device) < torch.tensor([[length], [length // 2]], device=a.device)
        mask = mask[torch.arange(a.batch, device=a.device) % 2]
        with torch.no_grad():
            exact = plain_attention(q.double(), k.double(), v.double(), mask)
        for name, function in (("plain", plain_attention), ("ours", attention)):
            forward = partial(function, q, k, v, mask)
            phases = (
                partial(without_graph, forward),
                partial(backward, forward, (q, k, v)),
                partial(penalty, forward, q, v),
            )

            times = [1e3 * seconds(f, a.repeat, a.device) for f in phases]
            error = float((without_graph(forward).double() - exact).abs().max())
            figures = "".join(f"{t:>{w}.1f}" for t, w in zip(times, (10, 11, 10)))
            print(f"{length:>7}{name:>8}{figures}{kept(forward) / 2**20:>9.1f}{error:>10.1e}", flush=True)


def without_graph(forward: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return forward()


def backward(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> None:
    torch.autograd.grad(forward().sum(), inputs)


def penalty(forward: Callable[[], Tensor], q: Tensor, v: Tensor) -> None:
    (slope,) = torch.autograd.grad(forward().sum(), v, create_graph=True)
    torch.autograd.grad(slope.square().sum(), q)


def kept(forward: Callable[[], Tensor]) -> int:
    """Bytes that a graph holds for its backward pass."""
    storages: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        result = forward()
    size = sum(storages.values())
    del result
    return size


# ---- StyleGAN3


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


def build(settings: configuration.Config, batch: int, device: str, layout: torch.memory_format) -> tuple[Any, ...]:
    """G, D, captions and latents."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    channels = 64
    nets = backbone(settings.model.name)
    G = nets.Generator(settings.model, channels).to(device, memory_format=layout)
    D = nets.Discriminator(settings.model, channels).to(device, memory_format=layout)
    sentence = F.normalize(torch.randn(batch, channels)).to(device)
    text = Text(sentence, sentence[:, None], torch.ones(batch, 1, dtype=torch.bool, device=device))
    return G, D, text, torch.randn(batch, G.latent_dim).to(device)


def measure(published: bool, settings: configuration.Config, batch: int, repeat: int, device: str) -> dict[str, Any]:
    """Seconds of a generator's forward pass and update, peak memory in GB, and a picture, to be compared."""
    G, D, text, z = build(settings, batch, device, torch.contiguous_format if published else torch.channels_last)

    @torch.no_grad()
    def forward() -> Tensor:
        return G(z, text)

    def step() -> None:
        D.requires_grad_(False)
        F.softplus(-D(G(z, text), text).logit).mean().backward()
        D.requires_grad_(True)
        G.zero_grad()

    def run() -> dict[str, Any]:
        found: dict[str, Any] = {"G forward": seconds(forward, repeat, device), "picture": forward().cpu()}
        found["G step"] = seconds(step, repeat, device)
        found["kept"] = kept(lambda: G(z, text)) / 2**30
        found["peak"] = memory_gb(torch.device(device))
        return found

    if published:
        with published_form():
            return run()
    return run()


def compare_stylegan3(a: argparse.Namespace) -> None:
    standard = [
        "generator.name=stylegan3",
        "generator.channel_base=16384",
        "discriminator.channel_base=16384",
        "generator.text=mapping",
        "discriminator.text=projection",
    ]
    settings = configuration.load(None, [*standard, *a.set])
    found = []
    for published in (False, True):  # each in a process of its own, for its own peak of memory
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found.append(pool.submit(measure, published, settings, a.batch, a.repeat, a.device).result())
    ours, theirs = found
    print(f"{'':<24}{'published form':>15}{'ours':>9}{'ratio':>8}")
    rows = {
        "G forward": "seconds", "G step": "seconds", "peak": "GB, whole process", "kept": "GB, by G for backward",
    }  # fmt: skip
    for key, unit in rows.items():
        print(f"{f'{key} ({unit})':<24}{theirs[key]:>15.2f}{ours[key]:>9.2f}{ours[key] / theirs[key]:>8.2f}")
    print(f"largest difference of a pixel: {float((ours['picture'] - theirs['picture']).abs().max()):.1e}")


# ---- memory


def update_peak(settings: configuration.Config, batch: int, device: str) -> tuple[float, float]:
    """GB that the generator's gradients need at most, and those with R1's, beyond the weights."""
    G, D, text, z = build(settings, batch, device, torch.channels_last)
    start = memory_gb(z.device)
    D.requires_grad_(False)
    F.softplus(-D(G(z, text), text).logit).mean().backward()
    generator = memory_gb(z.device) - start
    D.requires_grad_(True)
    size = settings.model.resolution
    image = torch.rand(batch, 3, size, size, device=device, requires_grad=True)
    (slope,) = torch.autograd.grad(D(image, text).logit.sum(), image, create_graph=True)
    slope.square().sum().backward()
    return generator, memory_gb(z.device) - start


def compare_memory(a: argparse.Namespace) -> None:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed goes back at once, and does not count as used
    rows = {
        "StyleGAN2": [], "StyleGAN3-T": ["generator.name=stylegan3"],
        "StyleGAN3-T, recompute": ["generator.name=stylegan3", "generator.recompute=true"],
    }  # fmt: skip
    print(f"{'GB':<24}{'G update':>10}{'and R1':>8}{'ratio':>7}")
    least = 0.0
    for name, overrides in rows.items():
        settings = configuration.load(None, ["model.resolution=256", "model.width=0.5", *overrides, *a.set])
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            generator, both = pool.submit(update_peak, settings, a.batch, a.device).result()
        least = least or both
        print(f"{name:<24}{generator:>10.2f}{both:>8.2f}{both / least:>7.2f}", flush=True)


if __name__ == "__main__":
    run_command(main)
