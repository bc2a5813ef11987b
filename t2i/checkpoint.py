"""Checkpoints: a model folder anyone may load, and beside it the state that training continues from.

runs/<name>/checkpoints/<step>/ holds a model folder (see t2i/model.py) and state.pt. It is
written under another name and renamed when complete, so that a kill or a full disk leaves the previous one intact.
"""

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from t2i.errors import UserError
from t2i.model import save_model
from t2i.step import Run


def folders(run_folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(p for p in (run_folder / "checkpoints").glob("[0-9]*") if (p / "state.pt").is_file())


def save(run: Run, run_folder: Path) -> Path:
    """Writes a checkpoint of the present step and removes all but the newest `log.keep`."""
    target = run_folder / "checkpoints" / f"{run.step:09d}"
    if target.is_dir():
        return target
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        kimg = run.images / 1000
        save_model(
            partial, run.G_ema.state_dict(), run.config, run.text_encoder.dim, kimg,
            discriminator_state=run.D.state_dict(),
        )  # fmt: skip
        with open(partial / "state.pt", "wb") as file:
            torch.save(state(run), file)
        for path in partial.iterdir():
            _flush(path)
        partial.rename(target)
        _flush(target.parent)
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        before = folders(run_folder)
        kept = f"the last one is {before[-1]}" if before else "there is none before it"
        full = getattr(error, "errno", None) == errno.ENOSPC or isinstance(error, RuntimeError)
        reason = "disk full" if full else str(error)
        raise UserError(f"checkpoint {target} not written ({reason}); {kept}; free space, then resume") from error
    for old in folders(run_folder)[: -run.config.log.keep]:
        shutil.rmtree(old)
    return target


def _flush(path: Path) -> None:
    """Waits until a file or folder is on the disk: a rename must not overtake what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state(run: Run) -> dict[str, Any]:
    """All that the next step depends on, as tensors and plain values (loads with weights_only=True)."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast(tuple, np.random.get_state())
    return {
        "G": run.G.state_dict(),
        "D": run.D.state_dict(),
        "G_ema": run.G_ema.state_dict(),
        "perturb": run.perturb.state_dict() if run.perturb else None,
        "g_optimizer": run.g_optimizer.state_dict(),
        "d_optimizer": run.d_optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "step": run.step,
        "images": run.images,  # also the sampler's position: the next step reads pictures images … images + batch - 1
        "ada_p": run.ada_p,
        "ada_signs": run.ada_signs,
        "path_mean": run.path_mean,
        "queues": run.queues,
        "world": run.world,
        # Training draws from Rng(seed, step); these serve whatever a backbone or loss draws besides.
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all(),
        "numpy_rng": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "python_rng": (version, list(numbers), gauss),
    }


def load(run: Run, folder: Path) -> None:
    """Puts a run into the state that `save` stored in a folder."""
    try:
        stored = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        for name in ("G", "D", "G_ema", "scaler"):
            getattr(run, name).load_state_dict(stored[name])
        if run.perturb:
            run.perturb.load_state_dict(stored.get("perturb") or {})
        for name in ("g_optimizer", "d_optimizer"):
            optimizer = getattr(run, name)
            # The configuration's learning rate and betas, which may have been changed, not the stored ones.
            options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            optimizer.load_state_dict(stored[name])
            for group, given in zip(optimizer.param_groups, options, strict=True):
                group.update(given)
    except (RuntimeError, ValueError, KeyError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"resume from {folder}: it does not fit this configuration ({reason}); "
            "undo the change of model, or choose another name="
        ) from None
    run.step, run.images = stored["step"], stored["images"]
    run.ada_p = stored["ada_p"]
    run.ada_signs = stored["ada_signs"]
    run.path_mean.copy_(stored["path_mean"])
    to_device = lambda rows: {key: value.to(run.device) for key, value in rows.items()}
    run.queues = {name: to_device(rows) for name, rows in stored.get("queues", {}).items()}
    torch.set_rng_state(stored["torch_rng"])
    if len(stored["cuda_rng"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(stored["cuda_rng"])
    keys, position, has_gauss, cached = stored["numpy_rng"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, numbers, gauss = stored["python_rng"]
    random.setstate((version, tuple(numbers), gauss))
