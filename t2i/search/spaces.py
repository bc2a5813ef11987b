"""From the coordinates that algorithms search to pictures, and what keeps those where plain samples lie.

Every coordinate is N(0, 1) in plain samples. Spaces: "z", the latent; "w", a generator's style, whitened; either with
"+truncation" (one more coordinate) and "+noise" (a few more for every layer that takes noise). What else a latent has,
as a camera's pose, is drawn once: all candidates have the same.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.interfaces import Latent
from t2i.model import Model
from t2i.rng import SampleRng, derive_seed
from t2i.search.language import parse_space
from t2i.search.seeds import seed_for
from t2i.search.settings import Settings

W_SAMPLES = 2048  # latents from which the distribution of w is measured
W_QUANTILE = 0.975  # of the norms of those: a searched w may not lie farther out
NOISE_MAPS = 4  # noise maps a layer that a candidate mixes
MIN_TRUNCATION, MAX_TRUNCATION = 0.5, 1.0


class Space:
    """The coordinates of one prompt's candidates."""

    def __init__(
        self, model: Model, prompt: str, kind: str = "z", truncation: float = 1.0, noise: str = "const", seed: int = 0
    ):
        """truncation: of all candidates, unless it is searched. noise: "const", or "random": one draw for all."""
        self.latent_kind, extras = parse_space(kind)
        self.model, self.generator, self.text = model, model.generator, model.text_encoder([prompt])
        self.stage, self.truncation, self.seed, self.device = model.stage, truncation, seed, model.device
        self.drawn: Latent = self.generator.latent(1, SampleRng([seed], self.device))
        self.maps: dict[int, Tensor] = {}
        if (self.latent_kind == "w" or "truncation" in extras) and not self.generator.w_dim:
            raise UserError(f"--space {kind}: this generator has no mapping network; use --space z")
        self.noise_layers = self._count_noise_layers() if noise == "random" or "noise" in extras else 0
        if "noise" in extras and not self.noise_layers:
            raise UserError(f"--space {kind}: this generator has no noise inputs; leave +noise out")
        self.noise = "const" if noise == "const" and "noise" not in extras else None  # None: maps of our own
        self.maps_per_layer = NOISE_MAPS if "noise" in extras else 1
        self.searches_truncation, self.searches_noise = "truncation" in extras, "noise" in extras
        if self.latent_kind == "w":
            self._fit_w()
        self.size = self.mean.numel() if self.latent_kind == "w" else self.generator.latent_dim
        weights = self.maps_per_layer * self.noise_layers if self.searches_noise else 0  # of noise maps
        self.dim = self.size + self.searches_truncation + weights

    def _count_noise_layers(self) -> int:
        """How often a picture asks for noise."""
        maps = NoiseMaps(self, None)
        with torch.no_grad():
            self.generator(self.drawn, self.text, self.stage, noise=maps)
        return maps.layer

    def _fit_w(self) -> None:
        """w = mean + factor · x with x ~ N(0, I) has the mean and covariance of the prompt's w."""
        rng = torch.Generator().manual_seed(derive_seed(self.seed, W_SAMPLES))
        z = torch.randn(W_SAMPLES, self.generator.latent_dim, generator=rng).to(self.device)
        with torch.no_grad():
            w = self.generator.styles(self._latent(z), self.text[[0] * W_SAMPLES])[:, 0]  # [W_SAMPLES, w_dim]
        w = w.double().cpu()
        mean, covariance = w.mean(0), w.T.cov()
        covariance += 1e-4 * covariance.diagonal().mean() * torch.eye(len(mean))  # z may have fewer dimensions
        factor = torch.linalg.cholesky(covariance)
        x = torch.linalg.solve_triangular(factor, (w - mean).T, upper=False)  # [w_dim, W_SAMPLES]
        self.max_norm = float(torch.quantile(x.norm(dim=0), W_QUANTILE))
        self.mean, self.cholesky = mean.float().to(self.device), factor.float().to(self.device)

    def project(self, points: np.ndarray) -> np.ndarray:
        """[n, dim] → float32, each point at the norm of plain samples: z at √d, w at most at their 97.5 % quantile."""
        points = np.array(points, np.float64)
        main = points[:, : self.size]
        norm = np.maximum(np.linalg.norm(main, axis=1, keepdims=True), 1e-12)
        main *= math.sqrt(self.size) / norm if self.latent_kind == "z" else np.minimum(self.max_norm / norm, 1)
        np.clip(points[:, self.size :], -3, 3, out=points[:, self.size :])
        return points.astype(np.float32)

    def images(self, points: Tensor) -> Tensor:
        """Projected points [n, dim] → pictures [n, 3, H, W] in [-1, 1], differentiable."""
        n, main = len(points), points[:, : self.size]
        text = self.text[[0] * n]
        noise: Any = self.noise
        if noise is None:
            free = points[:, self.dim - self.maps_per_layer * self.noise_layers :] if self.searches_noise else None
            noise = NoiseMaps(self, None if free is None else free.view(n, self.noise_layers, self.maps_per_layer))
        if self.latent_kind == "z" and not self.searches_truncation:
            latent, truncation = self._latent(main), self.truncation
            return self.generator(latent, text, self.stage, truncation=truncation, noise=noise).image.clamp(-1, 1)
        if self.latent_kind == "z":
            ws = self.generator.styles(self._latent(main), text)  # [n, num_ws, w_dim]
        else:
            ws = (self.mean + main @ self.cholesky.T)[:, None].expand(-1, self.generator.num_ws, -1)
        ws = self.generator.w_avg.lerp(ws, self._truncation(points))
        return self.generator.from_styles(ws, text, self.stage, noise=noise).image.clamp(-1, 1)

    def _latent(self, z: Tensor) -> Latent:
        """z [n, latent_dim] with all else as drawn."""
        return replace(self.drawn[[0] * len(z)], z=z)

    def _truncation(self, points: Tensor) -> Tensor | float:
        if not self.searches_truncation:
            return self.truncation
        uniform = (1 + torch.erf(points[:, self.size, None, None] / math.sqrt(2))) / 2  # of N(0, 1)
        return MIN_TRUNCATION + (MAX_TRUNCATION - MIN_TRUNCATION) * uniform

    def describe(self, point: np.ndarray) -> dict[str, float]:
        """What says whether a candidate [dim] is a typical sample: its norm by that of plain ones, its truncation."""
        norm = float(np.linalg.norm(point[: self.size]) / math.sqrt(self.size))
        with torch.no_grad():
            truncation = self._truncation(torch.from_numpy(point[None]))
        return {"norm": norm, "truncation": float(truncation)}


class NoiseMaps:
    """Noise for the layers of one pass: N(0, 1) maps that are the same for all candidates, or each one's mixture.

    A mixture with weights of unit length of independent N(0, 1) maps is such a map again.
    """

    def __init__(self, space: Space, weights: Tensor | None):
        self.space, self.weights, self.layer = space, weights, 0

    def randn(self, n: int, *shape: int) -> Tensor:
        """[n, *shape] for the next layer."""
        space, layer = self.space, self.layer
        self.layer += 1
        if layer not in space.maps:
            rng = torch.Generator().manual_seed(derive_seed(space.seed, 1, layer))
            space.maps[layer] = torch.randn(NOISE_MAPS, *shape, generator=rng).to(space.device)
        maps = space.maps[layer]
        if self.weights is None:
            return maps[:1].expand(n, *shape)
        weights = torch.nn.functional.normalize(self.weights[:, layer], dim=1)  # [n, NOISE_MAPS]
        return torch.einsum("nk,k...->n...", weights, maps)


def prompt_spaces(model: Model, prompt: str, settings: Settings) -> tuple[Space, Space]:
    """The coordinates of plain samples and of searched ones."""
    options = (settings.truncation, settings.noise, seed_for(settings.seed, prompt, "noise"))
    plain = Space(model, prompt, "z", *options)
    return plain, plain if settings.algorithm == "best_of_n" else Space(model, prompt, settings.space, *options)
