"""Checkpoints: a model folder anyone may load, and beside it the state that training continues from.

runs/<name>/checkpoints/<step>/ holds a model folder (see t2i/model.py) and state.pt. It is
written under another name and renamed when complete, so that a kill or a full disk leaves the previous one intact.
"""

import errno
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import torch

from t2i import schedule
from t2i.config import Config
from t2i.errors import UserError, one_line
from t2i.files import flush
from t2i.model import DESCRIPTION, checkpoints, read_description, save_model
from t2i.run import Run
from t2i.weights import check_digest, check_finite

STATE = "state.pt"

log = logging.getLogger(__name__)


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
        with open(partial / STATE, "wb") as file:
            torch.save(run.state_dict(), file)
        save_model(
            partial, run.G_ema.state_dict(), run.settings, run.text_encoder.dim, run.kimg, run.stage,
            run.D.state_dict(), beside=[STATE],
        )  # fmt: skip
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


def resume(run: Run, run_folder: Path) -> None:
    """Puts a run into the state of its newest checkpoint, if there is one, and says what of it was changed since.

    One that is damaged is passed over for the one before, with a line, and set aside as damaged-<step>. UserError where
    all are, and where the state is whole but of another configuration.
    """
    found, damaged = folders(run_folder), []
    for folder in reversed(found):
        try:
            before, state = read(folder)
        except UserError as error:
            if folder == found[0]:
                raise UserError(
                    f"{error}; no older checkpoint of {run_folder} is whole: put one back, or choose another name="
                ) from None
            damaged.append(folder)
            if run.rank == 0:
                log.warning("%s; going on from the checkpoint before it", error)
            continue
        _apply(run, folder, before, state)
        break
    if run.rank == 0:
        for folder in damaged:
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def load(run: Run, folder: Path) -> None:
    """The same of one checkpoint."""
    _apply(run, folder, *read(folder))


def _apply(run: Run, folder: Path, before: Config, state: dict[str, Any]) -> None:
    try:
        lines = run.load_state_dict(state)
    except UserError as error:
        raise UserError(f"resume from {folder}: {error}") from None
    except Exception as error:  # whatever a state leads torch to that is of something else
        raise UserError(
            f"resume from {folder}: it does not fit this configuration ({one_line(error)}); "
            "undo the change of model, or choose another name="
        ) from None
    lines += follow_changes(run, before)
    if run.rank == 0:
        for line in lines:
            log.warning("resume from %s: %s", folder, line)


def read(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration and the state of a checkpoint. UserError where it is damaged, or has been made to harm."""
    config, *_, digests = read_description(folder / DESCRIPTION)
    file = folder / STATE
    check_digest(file, digests)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises whatever a damaged file leads it to
        raise UserError(f"{file}: cannot be read ({one_line(error)})") from None
    well_formed = isinstance(state, dict) and all(
        isinstance(state.get(name), kind) and not isinstance(state[name], bool) for name, kind in KINDS.items()
    )
    if not well_formed or min(state["part"], state["step"], state["images"]) < 0 or not 0 <= state["ada_p"] <= 1:
        raise UserError(f"{file}: is no state of a training")
    check_finite(state, str(file))
    return config, state


KINDS: dict[str, Any] = {
    "G": dict, "D": dict, "G_ema": dict, "learnt": dict, "g_optimizer": dict, "d_optimizer": dict, "scaler": dict,
    "part": int, "step": int, "images": int, "ada_p": float | int, "ada_signs": list, "memory": dict, "sums": dict,
    "counts": dict, "random": dict,
}  # fmt: skip


def follow_changes(run: Run, before: Config) -> list[str]:
    """Lets settings that were changed win over what the state kept of them. Returns a line for each."""
    lines = []
    ada, old = run.config.ada, before.ada
    if ada.mode == "ada" and (old.mode, old.p) != (ada.mode, ada.p):
        run.ada_p, run.ada_signs = float(ada.p), []  # type: ignore[arg-type]
        lines.append(f"ada.p={ada.p} from here on")
    for term in run.objective.discriminator:
        now, then = (schedule_at(c.loss.get(term.name, {}).get("temperature"), run) for c in (run.config, before))
        if term.name in run.learnt and now is not None and now != then:
            with torch.no_grad():
                run.learnt[term.name].fill_(math.log(now))
            lines.append(f"loss.{term.name}.temperature={now} from here on")
    return lines


def schedule_at(value: Any, run: Run) -> float | None:
    return None if value is None else schedule.at(value, run.kimg)
