"""Points → scores, in micro-batches that do not depend on the population, on one process or several."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from t2i import parallel
from t2i.errors import UserError
from t2i.search.objectives import Objectives
from t2i.search.spaces import Space

THUMB = 8  # a side of the picture that measures of looks are taken of


@dataclass(frozen=True)
class Scores:
    """Of n points. Not a number where a picture's score was none."""

    terms: np.ndarray  # [n, terms] float64
    objectives: np.ndarray  # [n, objectives] float64
    gradient: np.ndarray | None = None  # [n, dim] float64, of the first objective
    measures: np.ndarray | None = None  # [n, 2] float64


class Fitting:
    """Work in parts of at most `most` rows, halved from then on when memory runs out."""

    def __init__(self, most: int, device: torch.device):
        self.most, self.device = most, device

    def __call__(self, rows: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """work: [k, ...] rows → [k, ...]; all of its results."""
        while True:
            try:
                return torch.cat([work(part) for part in rows.split(self.most)])
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback would keep what is to be freed.
            if self.most == 1:
                raise UserError("out of memory with one picture at a time; use fewer --views or a bigger device")
            self.most = min(self.most, len(rows)) // 2 or 1
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            print(f"out of memory: {self.most} pictures at a time from now on", flush=True)


class Evaluator:
    """One prompt's objectives over one space.

    Processes take turns at micro-batches of `batch` rows: the same arithmetic, and so the same scores, however many
    they are. When memory runs out a micro-batch is done in halves from then on, which may change a score's last bit.
    """

    def __init__(self, space: Space, objectives: Objectives, batch: int, looks: "Looks | None" = None):
        self.space, self.objectives, self.batch, self.looks = space, objectives, batch, looks
        self.fitting = Fitting(batch, space.device)

    def __call__(self, points: np.ndarray, gradients: bool = False) -> Scores:
        """points [n, dim] float32."""
        n, terms, parts = len(points), len(self.objectives.terms), len(self.objectives.parts)
        columns = [terms, parts, points.shape[1] if gradients else 0, 2 if self.looks else 0]
        table = torch.zeros(n, sum(columns), dtype=torch.float64)
        starts = range(0, n, self.batch)
        for start in starts[parallel.rank() :: parallel.world()]:
            rows = torch.from_numpy(points[start : start + self.batch])
            table[start : start + self.batch] = self.fitting(rows, lambda part: self._pass(part, gradients))
        if parallel.world() > 1:
            table = parallel.total(table.to(self.space.device)).cpu()  # each row is another's zeros: exact
        a, b, c, d = (x.numpy() for x in table.split(columns, 1))
        return Scores(a, b, c if gradients else None, d if self.looks else None)

    def _pass(self, points: Tensor, gradients: bool) -> Tensor:
        x = points.to(self.space.device).requires_grad_(gradients)
        with torch.set_grad_enabled(gradients), exact():
            images = self.space.images(x).float()
            terms, objectives = self.objectives(images)
            columns = [terms.detach(), objectives.detach()]
            if gradients:
                columns.append(torch.autograd.grad(objectives[:, 0].sum(), x)[0])
            if self.looks:
                columns.append(self.looks(images.detach()))
        return torch.cat([c.double().cpu() for c in columns], 1)

    @torch.no_grad()
    def images(self, points: np.ndarray) -> Tensor:
        """[n, 3, H, W] on the device, in micro-batches."""
        with exact():
            draw = lambda part: self.space.images(part.to(self.space.device)).float()
            starts = range(0, len(points), self.batch)
            return torch.cat([self.fitting(torch.from_numpy(points[i : i + self.batch]), draw) for i in starts])

    @torch.no_grad()
    def pictures(self, points: np.ndarray) -> Tensor:
        """Candidates as people get them, [n, 3, H, W] on the CPU; one at a time, so that it does not matter which."""
        with exact():
            rows = [self.space.images(torch.from_numpy(p[None]).to(self.space.device)) for p in points]
        return torch.cat(rows).float().cpu()


class Looks:
    """How a picture looks, in two numbers: the principal components of plain samples at 8×8 pixels, in their σ."""

    def __init__(self, plain: Tensor):
        """plain: [n, 3, H, W] in [-1, 1]."""
        x = _thumbs(plain).double()
        self.mean = x.mean(0)
        _, s, v = torch.linalg.svd(x - self.mean, full_matrices=False)
        self.basis = v[:2].T / (s[:2] / len(x) ** 0.5).clamp(min=1e-9)  # [3·8·8, 2]

    def __call__(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] → [n, 2] float64."""
        return (_thumbs(images).double().cpu() - self.mean.cpu()) @ self.basis.cpu()


def _thumbs(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.float(), THUMB).flatten(1)


def exact():
    """The same convolutions for the same micro-batch, as in Model.stream."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def out_of_memory(error: Exception) -> bool:
    """Accelerators have an error of their own; a CPU raises RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
