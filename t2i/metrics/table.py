"""Every metric by its name: what it looks through, what it needs, which way is better, and how its file is called.

A new metric is a file with `compute` and a line here. `compute` gives numbers, or one value a picture, whose mean is
the score and whose spread gives its interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from t2i.errors import UserError, closest
from t2i.metrics import (
    clip_score,
    cmmd,
    equivariance,
    fid,
    inception_score,
    kid,
    lpips_diversity,
    ms_ssim,
    ppl,
    prdc,
    r_precision,
    soa,
    swd,
    vgg_distance,
)
from t2i.metrics.networks import Network
from t2i.metrics.sources import Caption, Generated
from t2i.rng import SampleRng


@dataclass
class Evidence:
    """What metrics are computed from: features of the judged pictures and of the reference, row by row."""

    fake: dict[str, Any]  # name → [N, ...], or fid.Moments
    real: dict[str, Any]
    captions: Sequence[Caption]  # [N]
    networks: dict[str, Network]
    seed: int = 0

    def on(self, device: torch.device, names: Sequence[str]) -> "Evidence":
        """The same with the named features, rows or moments, on a device."""
        move = lambda features: features | {n: features[n].to(device) for n in names if n in features}
        return replace(self, fake=move(self.fake), real=move(self.real))

    def resampled(self, rows: Tensor, names: Sequence[str]) -> "Evidence":
        """The same with these rows of the named features of judged pictures."""
        return replace(self, fake=self.fake | {n: self.fake[n][rows.to(self.fake[n].device)] for n in names})


@dataclass(frozen=True)
class Metric:
    measure: Callable[[Evidence], dict[str, Any]]
    networks: tuple[str, ...] = ()  # of networks.NAMES
    features: tuple[str, ...] = ()  # that `measure` reads row by row
    scores: tuple[str, ...] = ()  # the main ones it gives; empty: one, of its own name
    lower: bool = False  # lower is better
    reference: bool = False  # needs real pictures
    moments: bool = False  # of the reference it needs only mean and covariance
    whole: bool = False  # only a whole set has a score: its interval takes computing it again
    of: str = "pictures"  # pictures, pairs (two pictures of each caption) or model (asks the generator itself)
    costly: bool = False  # computed only when asked for by name
    parts: tuple[str, ...] = ()  # of the generator, that a metric of the model needs


def _k(e: Evidence) -> int:
    return 3 if len(e.fake["inception"]) >= 50000 else 5


def _probe(e: Evidence) -> dict[str, Tensor]:
    judge = e.networks["probe"].of
    known = [(i, c) for i, c in enumerate(e.captions) if c.object in judge.objects]
    if not known:
        raise UserError("probe: the captions say no object; use those of scenes shards")
    seen = lambda name, names: [names[i] for i in e.fake[name].tolist()]
    objects, colors = seen("object", judge.objects), seen("color", judge.colors)
    right = torch.tensor([[objects[i] == c.object, c.color in (None, colors[i])] for i, c in known]).double()
    named = torch.tensor([c.color is not None for _, c in known])
    scores = {"probe_object": right[:, 0], "probe_both": right.prod(1)}
    return scores | ({"probe_color": right[named, 1]} if named.any() else {})


def _soa(e: Evidence) -> dict[str, Tensor]:
    names, drawn = e.networks["detector"].of, e.networks["detector"].fingerprint.startswith("probe ")
    asked = [{n for n in names if n == c.object} if drawn else soa.named(c.text) for c in e.captions]
    found = [{n for n, there in zip(names, row) if there} for row in e.fake["seen"].tolist()]
    return soa.compute(asked, found)


def _clip_score(e: Evidence) -> dict[str, Tensor]:
    scores = clip_score.compute(e.fake["clip"], e.fake["clip_text"])
    if "pair_image" in e.real:
        images, texts = e.real["pair_image"], e.real["pair_text"]
        scores |= {"real_clip_score": clip_score.compute(images, texts)["clip_score"]}
        found = clip_score.retrieval(images, texts, torch.arange(len(images)))
        scores |= {f"encoder_{name}": value for name, value in found.items()}
    return scores


def _decibels(e: Evidence, *names: str) -> dict[str, float]:
    """PSNR of pictures in [-1, 1] from their squared errors."""
    return {name: 10 * math.log10(4 / max(float(e.fake[name].mean()), 1e-30)) for name in names}


def _r_precision(e: Evidence) -> dict[str, Any]:
    captions = [c.text for c in e.captions]
    right = r_precision.compute(e.fake["clip"], e.fake["clip_text"], captions, seed=e.seed)["r_precision"]
    return {"r_precision": right, "r_precision_fold_std": float(r_precision.folds(right).std(correction=0))}


METRICS: dict[str, Metric] = {
    "fid": Metric(
        lambda e: fid.compute(e.fake["inception"], e.real["inception"]),
        ("inception",), ("inception",), lower=True, reference=True, moments=True, whole=True,
    ),
    "kid": Metric(
        lambda e: kid.compute(e.fake["inception"], e.real["inception"], seed=e.seed),
        ("inception",), ("inception",), lower=True, reference=True,
    ),
    "is": Metric(lambda e: inception_score.compute(e.fake["logits"]), ("inception",), ("logits",)),
    "prdc": Metric(
        lambda e: prdc.compute(e.fake["inception"], e.real["inception"], _k(e)),
        ("inception",), ("inception",), ("precision", "recall", "density", "coverage"), reference=True,
    ),
    "clip_score": Metric(_clip_score, ("clip",), ("clip", "clip_text")),
    "clip_fid": Metric(
        lambda e: fid.compute(e.fake["clip"], e.real["clip"], "clip_fid"),
        ("clip",), ("clip",), lower=True, reference=True, moments=True, whole=True,
    ),
    "cmmd": Metric(
        lambda e: cmmd.compute(e.fake["clip"], e.real["clip"]),
        ("clip",), ("clip",), lower=True, reference=True, whole=True,
    ),
    "r_precision": Metric(_r_precision, ("clip",), ("clip", "clip_text")),
    "swd": Metric(
        lambda e: swd.compute(e.fake["patches"], e.real["patches"], seed=e.seed),
        ("patches",), ("patches",), lower=True, reference=True,
    ),
    "ms_ssim": Metric(lambda e: {"ms_ssim": e.fake["ms_ssim"]}, lower=True, of="pairs"),
    "lpips_diversity": Metric(
        lambda e: {"lpips_diversity": e.fake["lpips_diversity"]}, ("lpips_alex",), of="pairs"
    ),
    "ppl": Metric(
        lambda e: ppl.compute(e.fake["ppl"]),
        ("lpips_vgg",), lower=True, of="model", parts=("mapping", "synthesis"),
    ),
    "eq_t": Metric(
        lambda e: _decibels(e, "eq_t", "eq_t_frac"), scores=("eq_t", "eq_t_frac"), of="model", costly=True,
        parts=("synthesis",),
    ),
    "eq_r": Metric(lambda e: _decibels(e, "eq_r"), of="model", costly=True, parts=("synthesis",)),
    "soa": Metric(_soa, ("detector",), ("seen",), ("soa_i", "soa_c")),
    "vgg": Metric(
        lambda e: vgg_distance.compute(e.fake["vgg"], e.real["vgg"], e.networks["vgg"].of.layers),
        ("vgg",), ("vgg",), ("VGG",), lower=True, reference=True, moments=True, whole=True,
    ),
    "probe": Metric(_probe, ("probe",), ("object", "color"), ("probe_object", "probe_color", "probe_both")),
}  # fmt: skip

# What is measured on two pictures of a caption: name → (first, second, networks) → rows.
PAIRS: dict[str, Callable[[Tensor, Tensor, dict[str, Network]], dict[str, Tensor]]] = {
    "ms_ssim": lambda a, b, _: ms_ssim.compute(a, b),
    "lpips_diversity": lambda a, b, networks: lpips_diversity.compute(a, b, networks["lpips_alex"].of),
}


def _path_lengths(source: Generated, networks: dict[str, Network], numbers: Sequence[int]) -> dict[str, Tensor]:
    """Of a path between two latents of each caption."""
    generator = source.model.generator
    text = source.model.text_encoder([source.captions[n].text for n in numbers])
    rng = SampleRng([source.seed + n for n in numbers], source.model.device)
    noise = "const" if getattr(generator, "noise", True) else None
    with torch.no_grad():
        w0, w1 = (generator.mapping(rng.randn(len(numbers), generator.latent_dim), text) for _ in range(2))
        synthesize = lambda w: generator.synthesis(w, text, noise).float()
        return {"ppl": ppl.distances(w0, w1, synthesize, networks["lpips_vgg"].of)}


def _moved(
    kinds: dict[str, str], source: Generated, _: dict[str, Network], numbers: Sequence[int]
) -> dict[str, Tensor]:
    """Squared errors of pictures whose input was moved; kinds: of equivariance.KINDS → the score's name."""
    generator, seeds = source.model.generator, [source.seed + n for n in numbers]
    z = SampleRng(seeds, source.model.device).randn(len(numbers), generator.latent_dim)
    text = source.model.text_encoder([source.captions[n].text for n in numbers])
    found = equivariance.compute(generator, z, text, seed=seeds[0], kinds=kinds)
    rows = lambda db: torch.full((len(numbers),), 4 / 10 ** (db / 10), dtype=torch.float64)
    return {kinds[kind]: rows(db) for kind, db in found.items()}


# What is measured on the generator: name → (source, networks, numbers of captions) → rows, for `measure` to sum up.
MODEL: dict[str, Callable[[Generated, dict[str, Network], Sequence[int]], dict[str, Tensor]]] = {
    "ppl": _path_lengths,
    "eq_t": partial(_moved, {"EQ-T": "eq_t", "EQ-T frac": "eq_t_frac"}),
    "eq_r": partial(_moved, {"EQ-R": "eq_r"}),
}


def known(names: Sequence[str]) -> list[str]:
    """The names in the table's order, each once. UserError for one that is not there."""
    for name in names:
        if name not in METRICS:
            raise UserError(f"metric {name}: {closest(name, METRICS)}")
    return [name for name in METRICS if name in names]


def main_scores(name: str) -> tuple[str, ...]:
    """The names of a metric's main scores."""
    return METRICS[name].scores or (name,)


def owner(score: str) -> str | None:
    """The metric that gives a score: "precision", "swd_64", "VGG relu1_2" → prdc, swd, vgg."""
    exact = [m for m in METRICS if score in main_scores(m)]
    begun = [m for m in METRICS if any(score.startswith((f"{s}_", f"{s} ")) for s in main_scores(m))]
    if exact or begun:
        return (exact or begun)[0]
    return "clip_score" if score.startswith(("real_clip", "encoder_")) else None
