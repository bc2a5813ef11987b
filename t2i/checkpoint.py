"""Checkpoints: a model folder anyone may load, and beside it the state that training continues from.

runs/<name>/checkpoints/<step>/ holds a model folder (see t2i/model.py) and state.pt. It is
written under another name and renamed when complete, so that a kill or a full disk leaves the previous one intact.
"""

import errno
import shutil
from pathlib import Path

import torch

from t2i.errors import UserError, one_line
from t2i.files import flush
from t2i.model import checkpoints, save_model
from t2i.run import Run

STATE = "state.pt"


def folders(run_folder: Path) -> list[Path]:
    """Complete checkpoints of a run that training can continue from, oldest first."""
    return [p for p in checkpoints(run_folder) if (p / STATE).is_file()]


def save(run: Run, run_folder: Path) -> Path:
    """Writes a checkpoint of the present step and removes all but the newest `log.keep`."""
    target = run_folder / "checkpoints" / f"{run.step:09d}"
    if target.is_dir():
        return target
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_model(
            partial, run.G_ema.state_dict(), run.settings, run.text_encoder.dim, run.kimg, run.stage, run.D.state_dict()
        )  # fmt: skip
        with open(partial / STATE, "wb") as file:
            torch.save(run.state_dict(), file)
        for path in partial.iterdir():
            flush(path)
        partial.rename(target)
        flush(target.parent)
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


def load(run: Run, folder: Path) -> None:
    """Puts a run into the state that `save` stored in a folder."""
    try:
        run.load_state_dict(torch.load(folder / STATE, map_location="cpu", weights_only=True))
    except (RuntimeError, ValueError, KeyError, OSError, EOFError) as error:
        raise UserError(
            f"resume from {folder}: it does not fit this configuration ({one_line(error)}); "
            "undo the change of model, or choose another name="
        ) from None
