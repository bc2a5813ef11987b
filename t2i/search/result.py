"""What a prompt's budget bought: the best distinct candidates, beside the best of as many plain samples."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from t2i.search import objectives
from t2i.search.distinct import distinct, similarity
from t2i.search.language import name_objective
from t2i.search.microbatch import deterministic_convolutions
from t2i.search.pool import Pool
from t2i.search.prompt_search import PromptSearch
from t2i.search.record import from_json

FRONT = 8  # pictures along a Pareto front


@dataclass
class Candidate:
    """One candidate that a person gets to see."""

    index: int  # in the record
    score: float
    terms: dict[str, float]
    point: np.ndarray
    held_out: float
    norm: float
    truncation: float
    d: float  # the discriminator's logit; NaN where the model folder has none


@dataclass
class Front:
    """The two objectives of a search that keeps them apart."""

    names: list[str]
    search: np.ndarray  # [n, 2] of all searched candidates
    baseline: np.ndarray  # [m, 2] of all plain samples
    front: np.ndarray  # rows of `search` that none beats in both, best in the first objective first
    shown: np.ndarray  # the rows that `pictures` are of
    pictures: Tensor  # [k, 3, H, W]


@dataclass
class Archive:
    """The best picture of every look that was found (MAP-Elites)."""

    cells: np.ndarray  # [n, 2] rows and columns of the grid
    pictures: Tensor  # [n, 3, H, W]


@dataclass
class Result:
    """What a prompt's budget bought."""

    prompt: str
    found: list[Candidate]  # the best distinct ones, best first
    baseline: list[Candidate]  # the same of plain samples, as many as there were evaluations
    plain: dict[str, tuple[float, float]]  # "score" and "held_out" of plain samples: mean, standard deviation
    spent: int
    generations: int
    stopped: str  # why
    invalid: int  # candidates whose score was not a number
    latents_alike: float  # mean cosine between latents of `found`
    pictures_alike: float  # and between their CLIP features
    history: list[dict[str, float]]  # after each generation: spent, best, median, held_out, baseline, ...
    pictures: dict[str, Tensor] = field(default_factory=dict)  # "plain", "baseline", "found": [k, 3, H, W]
    front: Front | None = None
    archive: Archive | None = None


def collect(search: PromptSearch) -> Result:
    """The result of a search that has ended."""
    searched, baseline = search.searched, search.baseline
    found = best_distinct(searched, search)
    plain = found if search.is_baseline else best_distinct(baseline, search)
    pictures = {"plain": search.plain_pictures[: search.settings.top_k].cpu(), "found": draw(found, searched)}
    pictures["baseline"] = pictures["found"] if search.is_baseline else draw(plain, baseline)
    alike = math.nan
    if search.scorers.clips:
        with torch.no_grad():
            features = search.scorers.clips[0].features(pictures["found"].to(search.model.device))
        alike = similarity(features.cpu().numpy())
    latents = np.stack([candidate.point for candidate in found])[:, : searched.space.size]
    return Result(
        search.prompt, found, plain, search.plain, search.spent, search.generation, search.stopped or "budget spent",
        search.invalid, similarity(latents), alike, search.history, pictures, pareto_front(search),
        collect_archive(search),
    )  # fmt: skip


def best_distinct(pool: Pool, search: PromptSearch) -> list[Candidate]:
    """The best distinct candidates of a pool, with what is known of each."""
    if not pool.scored:
        return []
    points, scores = pool.points, np.array([scored.score for scored in pool.scored])
    chosen = distinct(points[:, : pool.space.size], scores, search.settings.top_k)
    pictures = pool.evaluate.images_one_by_one(points[chosen])
    held_out, logits = pool.held_out(pictures), np.full(len(chosen), np.nan)
    if search.scorers.critic is not None:
        judge = objectives.discriminator_logit(search.scorers.critic, search.model.text_encoder([search.prompt]))
        with torch.no_grad(), deterministic_convolutions():
            logits = judge(pictures.to(search.model.device)).double().cpu().numpy()
    found = []
    for i, seen, d in zip(chosen, held_out, logits):
        scored = pool.scored[i]
        terms = {name: from_json(x) for name, x in scored.terms.items()}
        place = pool.space.describe(points[i])
        found.append(Candidate(scored.index, scored.score, terms, points[i], float(seen), d=float(d), **place))
    return found


def draw(found: list[Candidate], pool: Pool) -> Tensor:
    """[n, 3, H, W]"""
    return pool.evaluate.images_one_by_one(np.stack([c.point for c in found])) if found else torch.empty(0)


def pareto_front(search: PromptSearch) -> Front | None:
    """None where there is but one objective."""
    parts = search.searched.evaluate.objectives.parts
    if len(parts) < 2:
        return None

    def both_objectives(pool: Pool) -> np.ndarray:
        return np.array(
            [[sum(w * from_json(s.terms[k]) for k, w in part.items()) for part in parts] for s in pool.scored]
        )

    both = both_objectives(search.searched)
    front = pareto(both)
    shown = front[np.unique(np.linspace(0, len(front) - 1, min(len(front), FRONT)).round().astype(int))]
    pictures = search.searched.evaluate.images_one_by_one(search.searched.points[shown])
    names = [name_objective(part) for part in parts]
    return Front(names, both, both_objectives(search.baseline), front, shown, pictures)


def collect_archive(search: PromptSearch) -> Archive | None:
    kept = search.algorithm.archive()
    if kept is None:
        return None
    points, cells = kept
    return Archive(cells, search.searched.evaluate.images_in_batches(points.astype(np.float32)).cpu())


def pareto(values: np.ndarray) -> np.ndarray:
    """Rows of [n, 2] that no other is at least as good as in both, by the first column, the highest first."""
    chosen, most = [], -math.inf
    for i in np.lexsort((-values[:, 1], -values[:, 0])):
        if np.isfinite(values[i]).all() and values[i, 1] > most:
            chosen.append(i)
            most = values[i, 1]
    return np.array(chosen, int)
