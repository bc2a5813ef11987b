"""Where trials run side by side: GPUs by number, or a share of the CPU's cores."""

import os
from dataclasses import dataclass

from t2i.errors import UserError


@dataclass
class Slot:
    """What one run has for itself."""

    devices: str | None = None  # CUDA_VISIBLE_DEVICES; None: as it is
    cores: set[int] | None = None  # of the CPU; None: all


def share(jobs: int | None, devices: str | None, processes: int) -> list[Slot]:
    """A slot for each run that may go on at a time; `processes`: devices that a run takes."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: must be 1 or more")
    import torch  # here, so that a mistake need not wait for it

    wanted = jobs or 1
    if devices:
        chosen = devices.split(",")
    elif torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "true":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    else:
        cores = sorted(os.sched_getaffinity(0))
        if wanted > len(cores):
            raise UserError(f"--jobs {wanted}: there are {len(cores)} cores; at most one run a core")
        return [Slot(cores=set(cores[i::wanted])) for i in range(wanted)]
    if len(chosen) < processes:
        raise UserError(f"processes={processes}: a run takes so many devices, and there are {len(chosen)}")
    groups = [",".join(chosen[i : i + processes]) for i in range(0, len(chosen) - processes + 1, processes)]
    wanted = jobs or (len(groups) if devices else 1)
    return [Slot(devices=groups[i % len(groups)]) for i in range(wanted)]
