"""Points → scores, in micro-batches that do not depend on the population, on one process or several."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2i import parallel
from t2i.encoders.clip import Clip
from t2i.search import objectives
from t2i.search.measures import AppearanceMeasures
from t2i.search.microbatch import MicroBatches, deterministic_convolutions
from t2i.search.objectives import Objectives
from t2i.search.spaces import Space


@dataclass(frozen=True)
class Scores:
    """Of n points. Not a number where a picture's score was none."""

    terms: np.ndarray  # [n, terms] float64
    objectives: np.ndarray  # [n, objectives] float64
    gradient: np.ndarray | None = None  # [n, dim] float64, of the first objective
    measures: np.ndarray | None = None  # [n, 2] float64


class Evaluator:
    """One prompt's objectives over one space.

    Processes take turns at micro-batches of `batch` rows: the same arithmetic, and so the same scores, however many
    they are. When memory runs out a micro-batch is done in halves from then on, which may change a score's last bit.
    """

    def __init__(self, space: Space, objectives: Objectives, batch: int, measures: AppearanceMeasures | None = None):
        self.space, self.objectives, self.batch, self.measures = space, objectives, batch, measures
        self.in_micro_batches = MicroBatches(batch, space.device)

    def __call__(self, points: np.ndarray, gradients: bool = False) -> Scores:
        """points [n, dim] float32."""
        n, terms, parts = len(points), len(self.objectives.terms), len(self.objectives.parts)
        columns = [terms, parts, points.shape[1] if gradients else 0, 2 if self.measures else 0]
        table = torch.zeros(n, sum(columns), dtype=torch.float64)
        starts = range(0, n, self.batch)
        for start in starts[parallel.rank() :: parallel.world()]:
            rows = torch.from_numpy(points[start : start + self.batch])
            table[start : start + self.batch] = self.in_micro_batches(rows, lambda part: self._pass(part, gradients))
        if parallel.world() > 1:
            table = parallel.total(table.to(self.space.device)).cpu()  # each row is another's zeros: exact
        a, b, c, d = (x.numpy() for x in table.split(columns, 1))
        return Scores(a, b, c if gradients else None, d if self.measures else None)

    def _pass(self, points: Tensor, gradients: bool) -> Tensor:
        x = points.to(self.space.device).requires_grad_(gradients)
        with torch.set_grad_enabled(gradients), deterministic_convolutions():
            images = self.space.images(x).float()
            terms, objectives = self.objectives(images)
            columns = [terms.detach(), objectives.detach()]
            if gradients:
                columns.append(torch.autograd.grad(objectives[:, 0].sum(), x)[0])
            if self.measures:
                columns.append(self.measures(images.detach()))
        return torch.cat([c.double().cpu() for c in columns], 1)

    @torch.no_grad()
    def images_in_batches(self, points: np.ndarray) -> Tensor:
        """[n, 3, H, W] on the device, in micro-batches."""
        with deterministic_convolutions():
            draw = lambda part: self.space.images(part.to(self.space.device)).float()
            parts = [torch.from_numpy(points[i : i + self.batch]) for i in range(0, len(points), self.batch)]
            return torch.cat([self.in_micro_batches(part, draw) for part in parts])

    @torch.no_grad()
    def images_one_by_one(self, points: np.ndarray) -> Tensor:
        """Candidates as people get them, [n, 3, H, W] on the CPU: it does not matter which others are drawn."""
        with deterministic_convolutions():
            rows = [self.space.images(torch.from_numpy(p[None]).to(self.space.device)) for p in points]
        return torch.cat(rows).float().cpu()


class HeldOutScorer:
    """The similarity of pictures and a prompt to CLIPs that nothing optimises."""

    def __init__(self, clips: list[Clip], prompt: str, batch: int, device: torch.device):
        self.device, self.in_micro_batches = device, MicroBatches(batch, device)
        self.objective = objectives.clip_similarity(clips, prompt) if clips else None

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> np.ndarray:
        """[n, 3, H, W] → [n] float64; NaN without any CLIP."""
        if self.objective is None:
            return np.full(len(pictures), np.nan)
        with deterministic_convolutions():
            return self.in_micro_batches(pictures.to(self.device), self.objective).double().cpu().numpy()
