"""Pictures of prompts: python scripts/generate.py --prompt "a green train"

Uses the newest run below runs/ that has a checkpoint, or else the model that ships with the package.
"""

import argparse
import hashlib
import json
import platform
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

import t2i
from t2i.errors import UserError, run_command
from t2i.sampling import WEIGHTS, Model, load_model, picture_grid, to_uint8


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    prompts = read_prompts(options.prompt, options.prompts)
    out = options.out or Path("out") / f"{slug(prompts)}.png"
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give a name that ends in .png")
    model = load_model(options.checkpoint, options.device)
    print(f"model: {model.path} ({model.kimg:g} kimg, {model.resolution}×{model.resolution})", flush=True)
    for prompt in dict.fromkeys(prompts):
        if cut := model.text_encoder.cut(prompt):
            print(f"prompt {prompt!r} is longer than the text encoder reads; not read: {cut!r}", flush=True)

    stream = model.stream(
        prompts, options.count, options.seed, options.truncation, options.noise, batch=options.batch
    )  # fmt: skip
    total = len(prompts) * options.count
    pictures: list[torch.Tensor] = []
    try:
        for folder in (options.singles, out.parent):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        facts = how(model, options) if options.singles else {}
        with tqdm(total=total, unit="picture", disable=None, leave=False) as bar:
            for part in stream:
                for image in part:
                    if options.singles:
                        prompt, k = divmod(len(pictures), options.count)
                        save_single(options.singles, image, prompt, prompts[prompt], options.seed + k, facts)
                    pictures.append(image.cpu())
                bar.update(len(part))
        grid(torch.stack(pictures), prompts, options.count).save(out)
    except OSError as error:
        raise UserError(f"cannot write the pictures: {error}; choose another --out or --singles") from None
    if options.singles:
        print(f"single pictures, each with a JSON of how it was made: {options.singles}")
    print(f"{total} picture{'s' if total > 1 else ''}: {out}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prompt", action="append", default=[], help="what the pictures show; may be repeated")
    p.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    p.add_argument("--count", type=int, default=4, help="pictures a prompt (4)")
    p.add_argument("--seed", type=int, default=0, help="of a prompt's first picture; the next have seed + 1, ... (0)")
    p.add_argument("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (1)")
    p.add_argument("--noise", choices=("const", "random"), default="const", help="the generator's noise inputs (const)")
    p.add_argument("--checkpoint", metavar="RUN", help="a run, a checkpoint, a model folder, or one's name")
    p.add_argument("--out", type=Path, metavar="PNG", help="the picture grid (out/<first prompt>.png)")
    p.add_argument("--singles", type=Path, metavar="DIR", help="also save each picture, and how it was made as JSON")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, ...")
    p.add_argument("--batch", type=int, default=16, help="pictures a pass on a GPU; a CPU makes one at a time (16)")
    return p


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of the file."""
    for prompt in given:
        if not prompt.strip():
            raise UserError(f"--prompt {prompt!r}: empty; write what the picture should show")
    prompts = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"--prompts {file}: not a UTF-8 text file; one prompt a line") from None
        except OSError as error:
            raise UserError(f"--prompts {file}: {error.strerror}; give a text file, one prompt a line") from None
        prompts += [line.strip() for line in lines if line.strip()]
        if blank := sum(not line.strip() for line in lines):
            print(f"{file}: skipped {blank} blank line{'s' if blank > 1 else ''}", flush=True)
        if not prompts:
            raise UserError(f"--prompts {file}: has no prompt; write one a line")
    if not prompts:
        raise UserError('no prompt: say --prompt "a green train" or --prompts FILE')
    return prompts


def slug(prompts: list[str]) -> str:
    """A file name for prompts: 'a-green-train', 'a-green-train-and-2-more'."""
    words = "".join(c if c.isalnum() else " " for c in prompts[0].lower()).split()
    more = f"-and-{len(prompts) - 1}-more" if len(prompts) > 1 else ""
    return ("-".join(words)[:60].strip("-") or "prompt") + more


def how(model: Model, options: argparse.Namespace) -> dict:
    """How pictures are made, but for prompt and seed."""
    with open(model.path / WEIGHTS, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "truncation": options.truncation,
        "noise": options.noise,
        "checkpoint": str(model.path),
        "weights_sha256": digest,
        "kimg": model.kimg,
        "resolution": model.resolution,
        "device": str(model.device),
        "versions": {"t2i": t2i.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def save_single(folder: Path, image: torch.Tensor, number: int, prompt: str, seed: int, facts: dict) -> None:
    """<number of the prompt>-<prompt>-seed<seed>.png and .json."""
    name = f"{number:04d}-{slug([prompt])}-seed{seed}"
    Image.fromarray(to_uint8(image[None])[0].cpu().numpy()).save(folder / f"{name}.png")
    text = json.dumps({"prompt": prompt, "seed": seed, **facts}, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def grid(images: torch.Tensor, prompts: list[str], count: int) -> Image.Image:
    """A row a prompt; or, with one picture each, a block of labelled pictures; or a block of one prompt's pictures."""
    scale = max(256 // images.shape[-1], 1)
    if count == 1:
        return picture_grid(images, min(len(prompts), 8), prompts, scale)
    if len(prompts) > 1 or count <= 8:
        return picture_grid(images, count, prompts, scale)
    return picture_grid(images, 8, prompts + [""] * (-(-count // 8) - 1), scale)


if __name__ == "__main__":
    run_command(main)
