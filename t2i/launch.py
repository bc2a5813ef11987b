"""What `accelerate launch` says to a training: device, processes, precision, threads; what cannot be is refused."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from t2i import parallel, stages
from t2i.config import Config
from t2i.errors import UserError

REFUSED = {  # set by accelerate launch → the option that sets it
    "ACCELERATE_USE_FSDP": "--use_fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}


@dataclass(frozen=True)
class Launch:
    """Where a process of a training runs."""

    device: torch.device
    precision: str  # fp32, bf16 or fp16
    rank: int
    world: int


def start(settings: Config) -> tuple[Config, Launch]:
    """Joins the processes of a training; and the settings, with what was said to accelerate. UserError where the two
    contradict each other or ask for what there is not."""
    settings = heard(settings, {**os.environ, **unpassed(launcher())})
    # All processes meet here or none does: before this line each one that finds a mistake is alone with it.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    world = parallel.world()
    for part in stages.plan(settings):
        train = part.config.train
        if train.batch % (train.accumulate * world):
            where = f" from {part.start / 1000:g} kimg on" if part.start else ""
            raise UserError(
                f"train.batch={train.batch}{where}: must be a multiple of processes x train.accumulate = "
                f"{world} x {train.accumulate}"
            )
    if state.device.type == "cpu":
        torch.set_num_threads(threads(world))
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return settings, Launch(state.device, precision(settings.train.precision, state.device), parallel.rank(), world)


def end() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def heard(settings: Config, said: Mapping[str, str]) -> Config:
    """The settings with what the options of accelerate launch say besides. said: its environment variables."""
    for variable, option in REFUSED.items():
        if said.get(variable, "false").lower() in ("1", "true"):
            raise UserError(f"accelerate launch {option}: not supported, networks here fit one device; leave it out")
    if (backend := said.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()) != "no":
        raise UserError(
            f"accelerate launch --dynamo_backend {backend}: not supported (second derivatives); leave it out"
        )
    train = settings.train
    mixed = said.get("ACCELERATE_MIXED_PRECISION", "no").lower()  # "no" is also what it says when nobody asked
    if mixed not in ("no", "bf16", "fp16"):
        raise UserError(f"accelerate launch --mixed_precision {mixed}: not supported; use no, bf16 or fp16")
    if mixed != "no":
        if train.precision not in ("auto", mixed):
            raise UserError(
                f"train.precision={train.precision}: accelerate launch --mixed_precision {mixed} says otherwise; "
                "give one of them"
            )
        train = replace(train, precision=mixed)
    given = said.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if not given.isdecimal():
        raise UserError(f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={given}: a whole number; or say train.accumulate=N")
    if (rounds := int(given)) > 1:
        if train.accumulate not in (1, rounds):
            raise UserError(
                f"train.accumulate={train.accumulate}: accelerate launch --gradient_accumulation_steps {rounds} says "
                "otherwise; give one of them"
            )
        train = replace(train, accumulate=rounds)
    return replace(settings, train=train)


def precision(asked: str, device: torch.device) -> str:
    """fp32, bf16 or fp16; "auto": bf16 where the device computes it itself, else fp32."""
    if asked == "auto":
        if device.type == "cuda":
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = device.type == "cpu" and (
                torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
            )
        return "bf16" if able else "fp32"
    if asked == "fp16" and device.type != "cuda":
        raise UserError("train.precision=fp16: needs a CUDA device; use fp32 or bf16 here")
    return asked


def threads(world: int) -> int:
    """OMP_NUM_THREADS where the user set it, else a process's share of the cores.

    accelerate launch sets it to 1 for its processes when nobody did; its own environment tells which it was.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given == "1" and "ACCELERATE_MIXED_PRECISION" in os.environ and sys.platform == "linux":
        entries = _of_parent("environ")
        given = next((e.partition("=")[2] for e in entries if e.startswith("OMP_NUM_THREADS=")), "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    return max(len(os.sched_getaffinity(0)) // local, 1)


def launcher() -> list[str]:
    """The command that launched this process, from `accelerate` on, where that can be known; else nothing."""
    words = _of_parent("cmdline")
    names = [Path(word).name for word in words]
    return ["accelerate", *words[names.index("accelerate") + 1 :]] if "accelerate" in names else []


def unpassed(command: list[str]) -> dict[str, str]:
    """What accelerate launch takes and passes on to DeepSpeed alone, as the variable it would be."""
    for word, following in zip(command, [*command[1:], ""]):
        name, _, value = word.partition("=")
        if name == "--gradient_accumulation_steps":
            return {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": value or following}
    return {}


def _of_parent(what: str) -> list[str]:
    """The strings of environ or cmdline, as the parent process was started with them; on Linux."""
    try:
        text = Path(f"/proc/{os.getppid()}/{what}").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.removesuffix("\0").split("\0")
