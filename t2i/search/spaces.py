"""From the coordinates that algorithms search to pictures, and what keeps those where plain samples lie.

Every coordinate is N(0, 1) in plain samples. Spaces: "z", the latent; "w", StyleGAN's style, whitened; either with
"+truncation" (one more coordinate) and "+noise" (a few more for every layer that takes noise).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.errors import UserError, closest
from t2i.model import Model
from t2i.rng import derive_seed

EXTRAS = ("noise", "truncation")
FITTED = 2048  # latents from which the distribution of w is measured
QUANTILE = 0.975  # of the norms of those: a searched w may not lie farther out
FIELDS = 4  # noise maps a layer that a candidate mixes
LEAST, MOST = 0.5, 1.0  # truncation


class Space:
    """The coordinates of one prompt's candidates."""

    def __init__(
        self, model: Model, prompt: str, kind: str = "z", truncation: float = 1.0, noise: str = "const", seed: int = 0
    ):
        """truncation: of all candidates, unless it is searched. noise: "const", or "random": one draw for all."""
        self.main, extras = parse(kind)
        self.model, self.generator, self.text = model, model.generator, model.text_encoder([prompt])
        self.truncation, self.seed, self.device = truncation, seed, model.device
        self.maps: dict[int, Tensor] = {}
        for part in ("mapping", "synthesis"):
            if (self.main == "w" or "truncation" in extras) and not hasattr(self.generator, part):
                raise UserError(
                    f"--space {kind}: model.name={model.config.model.name} has no {part} network; use --space z"
                )
        self.layers = self._layers() if noise == "random" or "noise" in extras else 0
        if "noise" in extras and not self.layers:
            raise UserError(f"--space {kind}: this model has no noise inputs (model.noise=false); leave +noise out")
        self.noise = "const" if noise == "const" and "noise" not in extras else None  # None: maps of our own
        self.fields = FIELDS if "noise" in extras else 1
        self.free_truncation, self.free_noise = "truncation" in extras, "noise" in extras
        if self.main == "w":
            self._measure_w()
        self.size = self.mean.numel() if self.main == "w" else self.generator.latent_dim
        self.dim = self.size + self.free_truncation + (self.fields * self.layers if self.free_noise else 0)

    def _layers(self) -> int:
        """How often a picture asks for noise."""
        maps = _Maps(self, None)
        with torch.no_grad():
            z = torch.zeros(1, self.generator.latent_dim, device=self.device)
            self.generator(z, self.text, noise=maps)
        return maps.layer

    def _measure_w(self) -> None:
        """w = mean + factor · x with x ~ N(0, I) has the mean and covariance of the prompt's w."""
        rng = torch.Generator().manual_seed(derive_seed(self.seed, FITTED))
        z = torch.randn(FITTED, self.generator.latent_dim, generator=rng).to(self.device)
        with torch.no_grad():
            w = self.generator.mapping(z, self.text[[0] * FITTED])[:, 0].double().cpu()  # [FITTED, w_dim]
        mean, covariance = w.mean(0), w.T.cov()
        covariance += 1e-4 * covariance.diagonal().mean() * torch.eye(len(mean))  # z may have fewer dimensions
        factor = torch.linalg.cholesky(covariance)
        x = torch.linalg.solve_triangular(factor, (w - mean).T, upper=False)  # [w_dim, FITTED]
        self.reach = float(torch.quantile(x.norm(dim=0), QUANTILE))
        self.mean, self.factor = mean.float().to(self.device), factor.float().to(self.device)

    def project(self, points: np.ndarray) -> np.ndarray:
        """[n, dim] → float32, each point at the norm of plain samples: z at √d, w at most at their 97.5 % quantile."""
        points = np.array(points, np.float64)
        main = points[:, : self.size]
        norm = np.maximum(np.linalg.norm(main, axis=1, keepdims=True), 1e-12)
        main *= math.sqrt(self.size) / norm if self.main == "z" else np.minimum(self.reach / norm, 1)
        np.clip(points[:, self.size :], -3, 3, out=points[:, self.size :])
        return points.astype(np.float32)

    def images(self, points: Tensor) -> Tensor:
        """Projected points [n, dim] → pictures [n, 3, H, W] in [-1, 1], differentiable."""
        n, main = len(points), points[:, : self.size]
        text = self.text[[0] * n]
        noise: Any = self.noise
        if noise is None:
            free = points[:, self.dim - self.fields * self.layers :] if self.free_noise else None
            noise = _Maps(self, None if free is None else free.view(n, self.layers, self.fields))
        if self.main == "z" and not self.free_truncation:
            return self.generator(main, text, truncation=self.truncation, noise=noise).clamp(-1, 1)
        if self.main == "z":
            ws = self.generator.mapping(main, text)  # [n, num_ws, w_dim]
        else:
            ws = (self.mean + main @ self.factor.T)[:, None].expand(-1, self.generator.num_ws, -1)
        ws = self.generator.mapping.w_avg.lerp(ws, self._truncation(points))
        noise = noise if getattr(self.generator, "noise", True) else None
        return self.generator.synthesis(ws, text, noise).clamp(-1, 1)

    def _truncation(self, points: Tensor) -> Tensor | float:
        if not self.free_truncation:
            return self.truncation
        t = points[:, self.size, None, None]
        return LEAST + (MOST - LEAST) * (1 + torch.erf(t / math.sqrt(2))) / 2  # N(0, 1) → uniform

    def describe(self, point: np.ndarray) -> dict[str, float]:
        """What says whether a candidate [dim] is a typical sample: its norm by that of plain ones, its truncation."""
        norm = float(np.linalg.norm(point[: self.size]) / math.sqrt(self.size))
        with torch.no_grad():
            truncation = self._truncation(torch.from_numpy(point[None]))
        return {"norm": norm, "truncation": float(truncation)}


class _Maps:
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
            space.maps[layer] = torch.randn(FIELDS, *shape, generator=rng).to(space.device)
        maps = space.maps[layer]
        if self.weights is None:
            return maps[:1].expand(n, *shape)
        weights = torch.nn.functional.normalize(self.weights[:, layer], dim=1)  # [n, FIELDS]
        return torch.einsum("nk,k...->n...", weights, maps)


def parse(kind: str) -> tuple[str, list[str]]:
    """'w+noise' → 'w', ['noise']."""
    main, *extras = kind.split("+")
    if main not in ("z", "w"):
        raise UserError(f"--space {kind}: starts with z or w, then perhaps +truncation and +noise")
    for extra in extras:
        if extra not in EXTRAS:
            raise UserError(f"--space {kind}: {extra!r} is no coordinate; {closest(extra, EXTRAS)}")
    return main, extras
