"""Plain samples of prompts as files: a grid, and single pictures that each say how they were made."""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from t2i.errors import UserError
from t2i.files import sha256
from t2i.model import WEIGHTS, Model, load_model
from t2i.pictures import picture_grid, to_uint8
from t2i.prompts import Drawing, Sampling, slug
from t2i.version import __version__


def draw(
    prompts: list[str], drawing: Drawing, checkpoint: str | None, device: str | None, out: Path, singles: Path | None
) -> None:
    """A grid at `out` (.png) and, in the folder `singles`, every picture with a JSON of how it was made."""
    model = load_for(prompts, checkpoint, device)
    count, total = drawing.count, len(prompts) * drawing.count
    stream = model.stream(prompts, count, drawing.seed, drawing.truncation, drawing.noise, batch=drawing.batch or 16)
    pictures: list[Tensor] = []
    with explain_os_errors("cannot write the pictures", "choose another --out or --singles"):
        for folder in (singles, out.parent):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        facts = provenance(model, drawing) if singles else {}
        with tqdm(total=total, unit="picture", disable=None, leave=False) as bar:
            for part in stream:
                for image in part:
                    if singles:
                        number, k = divmod(len(pictures), count)
                        about = {"prompt": prompts[number], "seed": drawing.seed + k, **facts}
                        save_single(singles, image, number, about)
                    pictures.append(image.cpu())
                bar.update(len(part))
        grid(torch.stack(pictures), prompts, count).save(out)
    if singles:
        print(f"single pictures, each with a JSON of how it was made: {singles}")
    print(f"{total} picture{'s' if total > 1 else ''}: {out}")


def load_for(
    prompts: list[str], checkpoint: str | None, device: Any = None, say: Callable[[str], Any] = print
) -> Model:
    """A model, and what its text encoder does not read of the prompts. device None: cuda where there is one."""
    model = load_model(checkpoint, device)
    say(f"model: {model.path} ({model.kimg:g} kimg, {model.resolution}×{model.resolution})")
    for prompt in dict.fromkeys(prompts):
        if cut := model.text_encoder.cut(prompt):
            say(f"prompt {prompt!r} is longer than the text encoder reads; not read: {cut!r}")
    return model


def provenance(model: Model, sampling: Sampling) -> dict[str, Any]:
    """How pictures are made, but for prompt and seed."""
    return {
        "truncation": sampling.truncation,
        "noise": sampling.noise,
        "checkpoint": str(model.path),
        "weights_sha256": sha256(model.path / WEIGHTS),
        "kimg": model.kimg,
        "resolution": model.resolution,
        "device": str(model.device),
        "versions": {"t2i": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def save_single(folder: Path, image: Tensor, number: int, about: dict[str, Any]) -> None:
    """<number of the prompt>-<prompt>-seed<seed>.png and .json of a picture [3, H, W]."""
    name = f"{number:04d}-{slug([about['prompt']])}-seed{about['seed']}"
    save_png(image, folder / f"{name}.png")
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_png(image: Tensor, path: Path) -> None:
    """A picture [3, H, W] in [-1, 1]."""
    Image.fromarray(to_uint8(image[None])[0].cpu().numpy()).save(path)


def grid(images: Tensor, prompts: list[str], count: int) -> Image.Image:
    """A row a prompt; or, with one picture each, a block of labelled pictures; or a block of one prompt's pictures."""
    scale = max(256 // images.shape[-1], 1)
    if count == 1:
        return picture_grid(images, min(len(prompts), 8), prompts, scale)
    if len(prompts) > 1 or count <= 8:
        return picture_grid(images, count, prompts, scale)
    return picture_grid(images, 8, prompts + [""] * (-(-count // 8) - 1), scale)


@contextmanager
def explain_os_errors(what: str, remedy: str) -> Iterator[None]:
    """An operating system's complaint as the user's: one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error}; {remedy}") from None
