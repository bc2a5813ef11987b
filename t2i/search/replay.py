"""A candidate of a finished search, drawn again from what its record says."""

from pathlib import Path
from typing import Any

from torch import Tensor

from t2i.drawing import explain_os_errors, save_png
from t2i.errors import UserError
from t2i.files import sha256
from t2i.model import WEIGHTS, Model, load_model
from t2i.search.evaluate import Evaluator
from t2i.search.objectives import Objectives
from t2i.search.record import settings_of, unpack
from t2i.search.spaces import prompt_spaces


def replay(head: dict[str, Any], row: dict[str, Any], checkpoint: str | None, device: str | None, out: Path) -> None:
    """Draws a candidate (record.read_candidate) to a PNG, with the very weights of the search."""
    model = load_model(checkpoint or head["checkpoint"], device)
    if (digest := sha256(model.path / WEIGHTS)) != head["weights_sha256"]:
        raise UserError(
            f"{model.path}: not the weights of the search ({digest[:12]}, not {head['weights_sha256'][:12]}); "
            "name theirs with --checkpoint"
        )
    picture = redraw(model, head, row)
    with explain_os_errors("cannot write the picture", "choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(picture[0], out)
    prompt = head["prompts"][row["prompt"]]
    print(f"{prompt!r}, {row['by']}, generation {row['generation']}, score {row['score']}: {out}")


def redraw(model: Model, head: dict[str, Any], row: dict[str, Any]) -> Tensor:
    """A candidate of a record (its first line and the candidate's) as a picture [1, 3, H, W] in [-1, 1]."""
    settings = settings_of(head)
    plain, searched = prompt_spaces(model, head["prompts"][row["prompt"]], settings)
    space = plain if row["by"] == "baseline" else searched
    point = unpack(row["point"])
    if len(point) != space.dim:
        raise UserError(f"record: the point of candidate {row['index']} has {len(point)} numbers, not {space.dim}")
    return Evaluator(space, Objectives({}), 1).images_one_by_one(point[None])
