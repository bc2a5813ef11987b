"""The Fréchet distance of two sets of features, which is FID on Inception's and has other names on other networks'.

A set is summed up by its mean and covariance, which take the same memory however many pictures there are. The
distance is biased upwards by few pictures: compare only distances of equally many.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from t2i.errors import UserError

ENOUGH = 10  # pictures a feature, for an interval
CHUNK = 8192  # rows in float64 at a time
UNSTATED = 1 << 40  # the count of statistics that do not say of how many pictures they are: not few


@dataclass
class Moments:
    """Mean and scatter of rows seen so far, in float64."""

    count: int
    mean: Tensor  # [C]
    scatter: Tensor  # [C, C] sum of squared deviations; divided by count - 1 it is the covariance

    @property
    def cov(self) -> Tensor:
        """[C, C], unbiased as NumPy's cov."""
        return self.scatter / (self.count - 1)

    def add(self, rows: Tensor) -> "Moments":
        """The moments of these and of rows [N, C] together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        joined = self
        for part in rows.split(CHUNK):
            part = part.double()
            mean = part.mean(0)
            centred = part - mean
            joined = joined.join(Moments(len(part), mean, centred.T @ centred))
        return joined

    def join(self, other: "Moments") -> "Moments":
        """Of both sets together."""
        shift, total = other.mean - self.mean, self.count + other.count
        scatter = self.scatter + other.scatter
        scatter += shift[:, None] * shift * (self.count * other.count / total)
        return Moments(total, self.mean + shift * (other.count / total), scatter)

    @cached_property
    def root(self) -> Tensor:
        """[C, C] Σ^½, computed once: a reference meets many sets."""
        values, vectors = torch.linalg.eigh(self.cov)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def to(self, device: torch.device | str) -> "Moments":
        return Moments(self.count, self.mean.to(device), self.scatter.to(device))

    def part(self, columns: slice) -> "Moments":
        """Of some of the features alone."""
        return Moments(self.count, self.mean[columns], self.scatter[columns, columns])


def moments(x: Tensor | Moments) -> Moments:
    """Of rows [N, C] of any float type; moments pass through."""
    if isinstance(x, Moments):
        return x
    if x.ndim != 2:
        raise UserError(f"Fréchet distance: features {tuple(x.shape)} must be [N, C]")
    zeros = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    return Moments(0, zeros, torch.outer(zeros, zeros)).add(x)


def frechet(a: Tensor | Moments, b: Tensor | Moments) -> float:
    """The squared Fréchet distance of two normal distributions fitted to a [N, C] and b [M, C] (Dowson & Landau
    1982, eq. 16): |μa − μb|² + Tr(Σa + Σb − 2 (Σa Σb)^½), in float64.

    The trace of the root is the sum of the roots of the eigenvalues of Σb^½ Σa Σb^½, which is symmetric: no
    complex numbers come up, also with fewer pictures than features. UserError where there are fewer than two rows,
    other shapes, or numbers that are not finite.
    """
    a, b = moments(a), moments(b)
    if min(a.count, b.count) < 2 or a.mean.shape != b.mean.shape:
        shapes = f"{(a.count, len(a.mean))} and {(b.count, len(b.mean))}"
        raise UserError(f"Fréchet distance: features {shapes} must be [N > 1, C], one C")
    if not all(x.isfinite().all() for x in (a.mean, a.scatter, b.mean, b.scatter)):
        raise UserError("Fréchet distance: features are not finite")
    overlap = torch.linalg.eigvalsh(b.root @ a.cov @ b.root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * overlap
    return max(float(distance), 0.0)


def compute(fake: Tensor | Moments, real: Tensor | Moments, name: str) -> dict[str, float]:
    """Rows [N, C] and [M, C], or their moments → {name: squared Fréchet distance, 0 or more}.

    Warns where there are no more pictures than features: the covariance then has not full rank and the distance is
    mostly bias.
    """
    fake, real = moments(fake), moments(real)
    distance = frechet(fake, real)
    warn_of_few(name, fake, real)
    return {name: distance}


def warn_of_few(name: str, fake: Moments, real: Moments) -> None:
    few, features = min(fake.count, real.count), len(fake.mean)
    if few <= features:
        warnings.warn(
            f"{name}: {few} pictures but {features} features: the covariance is singular and the distance mostly "
            "bias; for a figure to publish take 30,000 or more",
            stacklevel=3,
        )


def no_interval(rows: Tensor) -> str | None:
    """Simulated, the jackknife's interval covers what it says from ten pictures a feature on."""
    count, features = rows.shape
    if count >= ENOUGH * features:
        return None
    return f"an interval takes {ENOUGH} pictures for each of {features} features: with {count} it would be too wide"
