"""Everything that a training step reads or changes, and what of it outlives the process."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from t2i import stages
from t2i.config import Config
from t2i.errors import UserError
from t2i.interfaces import Stage
from t2i.objective import Term
from t2i.rng import Rng
from t2i.stages import Planned


@dataclass
class Objective:
    """The terms of one stage."""

    discriminator: list[Term]
    generator: list[Term]


@dataclass
class Run:
    """A training in progress. `config`, `stage` and the losses are those of the present stage."""

    settings: Config  # as given, with all its stages
    plan: list[Planned]
    objectives: list[Objective]  # one a stage
    G: Any  # t2i.nets.contract.Generator
    D: Any  # t2i.nets.contract.Discriminator
    G_ema: Any
    text_encoder: Any  # t2i.encoders.text.TextEncoder
    encoders: Mapping[str, Any]  # the frozen networks that losses look through, by name
    perturb: nn.Module | None  # of pictures' features into pseudo captions; learns with G
    learnt: nn.ParameterDict  # temperatures of losses; learn with D
    d_optimizer: torch.optim.Optimizer
    g_optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str = "fp32"  # fp32, bf16 or fp16
    rank: int = 0
    world: int = 1
    part: int = 0  # of the plan
    step: int = 0
    images: int = 0  # real pictures shown so far
    ada_p: float = 0.0
    ada_signs: list[float] = field(default_factory=list)  # mean sign of D(real), a number a step since adjusting p
    memory: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)  # what losses keep from step to step
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # of each term since the last line of the log
    counts: dict[str, int] = field(default_factory=dict)  # and of how many steps

    @property
    def config(self) -> Config:
        return self.plan[self.part].config

    @property
    def objective(self) -> Objective:
        return self.objectives[self.part]

    @property
    def stage(self) -> Stage:
        return stages.stage(self.plan[self.part], self.images)

    @property
    def kimg(self) -> float:
        return self.images / 1000

    @property
    def shown(self) -> int:
        """Real pictures a step."""
        return self.config.train.batch * self.config.train.d_steps

    def rng(self, phase: int, part: int) -> Rng:
        """Fresh random numbers for one round of one network's update; a pure function of (seed, step)."""
        return Rng(self.config.seed, self.step, phase, part, rank=self.rank, world=self.world, device=self.device)

    def autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def advance(self) -> bool:
        """Enters the stage that the next step belongs to; True where it is another one than before."""
        number = stages.number(self.plan, self.images)
        if number == self.part:
            return False
        adapts, self.part = self.config.ada.mode == "ada", number
        if self.config.ada.mode == "ada" and not adapts:
            self.ada_p = float(self.config.ada.p)
        if self.plan[number].reset:
            self.d_optimizer.state.clear()
            self.g_optimizer.state.clear()
        return True

    def terms(self) -> list[Term]:
        """Of both networks, in any stage."""
        return [t for o in self.objectives for t in [*o.discriminator, *o.generator]]

    # ---- what a checkpoint holds

    def modules(self) -> dict[str, Any]:
        """The parts that have a state_dict of their own."""
        parts = {
            "G": self.G, "D": self.D, "G_ema": self.G_ema, "perturb": self.perturb, "learnt": self.learnt,
            "g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer, "scaler": self.scaler,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part is not None}

    NUMBERS = ("part", "step", "images", "ada_p", "ada_signs", "memory", "sums", "counts")

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values (loads with weights_only=True).

        `images` is also the loader's position. Training draws from Rng(seed, step); the states of the libraries' own
        generators are kept for whatever a network or loss draws besides.
        """
        return {
            **{name: part.state_dict() for name, part in self.modules().items()},
            **{name: getattr(self, name) for name in self.NUMBERS},
            "random": _random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Puts the run into a state. Raises what torch raises where it does not fit.

        Parts that the losses of one configuration have and those of the other do not (a discriminator's regions, learnt
        temperatures) begin anew, or are left behind: a line for each is returned.
        """
        lines: list[str] = []
        if (self.perturb is None) != (state.get("perturb") is None):
            raise ValueError("text.source=image_nn has a network of its own")
        for name, part in self.modules().items():
            stored = state.get(name)
            if isinstance(part, torch.optim.Optimizer):
                _load_moments(part, state[name])
            elif isinstance(part, torch.amp.GradScaler):
                if stored:  # a run that was not fp16 until now has no scale
                    part.load_state_dict(stored)
            else:
                part.load_state_dict(_fitting(name, part, state[name], lines))
        for name in self.NUMBERS:
            setattr(self, name, state[name])
        if self.part >= len(self.plan):
            raise UserError(f"stages: the run was in number {self.part + 1}, and there are {len(self.plan)}")
        self.memory = {n: {k: x.to(self.device) for k, x in kept.items()} for n, kept in self.memory.items()}
        self.sums = {name: x.to(self.device) for name, x in self.sums.items()}
        _set_random_state(state["random"])
        return lines


def _fitting(name: str, part: nn.Module, stored: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    """A module's stored state where whole children of it, of which the other has none, are its own new ones."""
    own = part.state_dict()
    child = lambda key: key.partition(".")[0]
    mine, theirs = {child(key) for key in own}, {child(key) for key in stored}
    lines += [f"{name}.{key} begins anew" for key in sorted(mine - theirs)]
    lines += [f"{name}.{key} is left behind" for key in sorted(theirs - mine)]
    kept = {key: value for key, value in stored.items() if child(key) in mine}
    return kept | {key: value for key, value in own.items() if child(key) not in theirs}


def _load_moments(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Adam's averages, by the names of parameters and as those lie in memory. Learning rate, betas and epsilon are
    the configuration's, which may have been changed, not the stored ones."""
    (group,), (old,) = optimizer.param_groups, stored["param_groups"]
    names = old.get("param_names", group["param_names"])
    if len(names) != len(old["params"]):
        raise ValueError("its optimiser is of other parameters")
    known = {name: stored["state"][n] for name, n in zip(names, old["params"]) if n in stored["state"]}
    optimizer.state.clear()
    for name, parameter in zip(group["param_names"], group["params"]):
        if name not in known:
            continue
        if any(x.shape != parameter.shape for key, x in known[name].items() if key != "step"):
            raise ValueError(f"its averages of {name} have another shape")
        optimizer.state[parameter] = {
            # Fused Adam goes by memory: an average must lie there as its parameter does.
            key: x.clone().float() if key == "step" else torch.empty_like(parameter).copy_(x)
            for key, x in known[name].items()
        }
        if parameter.is_cuda:
            optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].to(parameter.device)


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast(tuple, np.random.get_state())
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "python": (version, list(numbers), gauss),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
