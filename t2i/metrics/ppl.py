"""Perceptual path length at the ends of paths in W (Karras et al. 2019, 1812.04948, section 4.1; 1912.04958)."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.metrics.intervals import Estimate
from t2i.metrics.metric import Metric, Networks
from t2i.metrics.networks import Settings
from t2i.metrics.sources import Generated, Source
from t2i.rng import SampleRng

EPSILON = 1e-4
LARGEST = 256  # pixels that LPIPS looks at


def distances(
    w0: Tensor,
    w1: Tensor,
    synthesize: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    epsilon: float = EPSILON,
) -> Tensor:
    """[N] float64: d(G(w0), G(lerp(w0, w1, ε))) / ε² of each pair of latents w0, w1 [N, ...] in W.

    synthesize: w → pictures [N, 3, H, W] in [-1, 1]; distance: two sets of pictures → [N] (LPIPS of VGG16). Pictures
    above 256 pixels are averaged down first. Both ends of a path have the same caption and noise.
    """
    with torch.no_grad():
        pictures = [synthesize(w) for w in (w0, torch.lerp(w0, w1, epsilon))]
        factor = pictures[0].shape[-1] // LARGEST
        if factor > 1:
            pictures = [F.avg_pool2d(p, factor) for p in pictures]
        return distance(*pictures).reshape(-1).double().cpu() / epsilon**2


def compute(lengths: Tensor) -> dict[str, Estimate]:
    """lengths [N] → {"ppl": the mean of those from the 1st to the 99th percentile}.

    What is cut off is uncertain too: the deviation is that of all lengths, the cut ones moved to the percentiles
    (Tukey & McLaughlin 1963).
    """
    lengths = lengths.double()
    low = torch.quantile(lengths, 0.01, interpolation="lower")
    high = torch.quantile(lengths, 0.99, interpolation="higher")
    mean = float(lengths[(lengths >= low) & (lengths <= high)].mean())
    spread = float(lengths.clamp(low, high).std()) / (0.98 * math.sqrt(len(lengths))) if len(lengths) > 1 else math.nan
    return {"ppl": Estimate(mean, spread)}


def _lengths(source: Generated, networks: Networks, numbers: Sequence[int]) -> dict[str, Tensor]:
    """Of a path between two latents of each caption."""
    generator = source.model.generator
    text = source.model.text_encoder([source.captions[n].text for n in numbers])
    rng = SampleRng([source.seed + n for n in numbers], source.model.device)
    stage = source.model.stage
    with torch.no_grad():
        w0, w1 = (generator.styles(generator.latent(len(numbers), rng), text) for _ in range(2))
        synthesize = lambda ws: generator.from_styles(ws, text, stage).image.float()
        return {"ppl": distances(w0, w1, synthesize, networks["lpips_vgg"].itself)}


def _lacks(source: Source, settings: Settings) -> str | None:
    assert isinstance(source, Generated)
    return None if source.model.generator.w_dim else "the generator has no intermediate space W"


METRIC = Metric(
    lambda e: compute(e.fake["ppl"]), networks=("lpips_vgg",), of_model=_lengths, lacks=_lacks, lower=True, order=120
)
