"""From a trained model to pictures: model folders, and the model that answers prompts.

A model folder holds generator.safetensors (the averaged generator's weights), model.json (what they are of) and
perhaps discriminator.safetensors, whose logit the search reads. None executes anything when it is loaded.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from t2i import build, stages, weights
from t2i import config as configuration
from t2i.config import Config
from t2i.encoders.pretrained.named import named_by
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError, closest, one_line
from t2i.files import sha256
from t2i.interfaces import Judgement, Stage, Text
from t2i.machine import find_device
from t2i.rng import SampleRng
from t2i.version import __version__
from t2i.weights import AGAIN

FORMAT = 2  # of model.json; rises when older code could no longer read a new folder
WEIGHTS, CRITIC, DESCRIPTION = "generator.safetensors", "discriminator.safetensors", "model.json"
RUNS, SHIPPED = Path("runs"), Path(__file__).parent / "assets" / "scenes-stylegan2"


@dataclass
class Model:
    """A trained generator with its text encoder."""

    generator: Any  # t2i.nets.contract.Generator
    text_encoder: Any  # t2i.encoders.text.TextEncoder
    config: Config
    kimg: float  # thousands of real pictures it was trained on
    path: Path  # the model folder it came from
    device: torch.device
    stage: Stage | None = None  # where its growth stood; None: finished
    digests: Mapping[str, str] = field(default_factory=dict)  # file → SHA-256, as its description says

    @property
    def resolution(self) -> int:
        return self.stage.resolution if self.stage else self.config.model.resolution

    def __call__(
        self,
        prompts: str | Sequence[str],
        count: int = 1,
        seed: int = 0,
        truncation: float = 1.0,
        noise: str = "const",
        seeds: Sequence[int] | None = None,
        batch: int = 16,
    ) -> Tensor:
        """Pictures of prompts: [len(prompts)·count, 3, H, W] float32 in [-1, 1], all of one prompt together.

        Picture k of every prompt has the seed `seed + k`; `seeds` gives each prompt (count 1) its own instead.
        A seed fixes the latent and, with noise="random", the noise: the same picture whatever it is made beside.
        batch: pictures a pass on an accelerator (more may change a pixel's last bit); a CPU makes one at a time.
        truncation below 1 pulls styles to their mean (1912.04958, appendix B): more typical, less varied.
        """
        return torch.cat(list(self.stream(prompts, count, seed, truncation, noise, seeds, batch)))

    @torch.no_grad()
    def stream(
        self,
        prompts: str | Sequence[str],
        count: int = 1,
        seed: int = 0,
        truncation: float = 1.0,
        noise: str = "const",
        seeds: Sequence[int] | None = None,
        batch: int = 16,
    ) -> Iterator[Tensor]:
        """The pictures of a call, [n, 3, H, W] at a time, where there are too many to hold at once."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise UserError("prompts: none given; say at least once what the picture should show")
        for prompt in prompts:
            if not prompt.strip():
                raise UserError(f"prompt {prompt!r}: empty; write what the picture should show")
        if count < 1:
            raise UserError(f"count={count}: 1 or more pictures a prompt")
        if batch < 1:
            raise UserError(f"batch={batch}: 1 or more pictures a pass")
        if not math.isfinite(truncation):
            raise UserError(f"truncation={truncation}: a number, usually from 0.5 to 1")
        if noise not in ("const", "random"):
            raise UserError(f"noise={noise}: {closest(noise, ('const', 'random'))}")
        if seeds is None:
            each = [(prompt, seed + k) for prompt in prompts for k in range(count)]
        elif count == 1 and len(seeds) == len(prompts):
            each = list(zip(prompts, seeds))
        else:
            raise UserError(f"seeds: {len(seeds)} for {len(prompts)} prompts; give one a prompt, with count=1")

        # The last bits of a convolution depend on the size of its batch, and so would a pixel here and there. On a CPU
        # each picture is therefore a pass of its own, though several at once would be faster. Elsewhere that would
        # cost too much: every pass has `batch` rows, the last one filled up, so that only `batch` itself can show.
        size = 1 if self.device.type == "cpu" else batch
        read, text = None, None
        for start in range(0, len(each), size):
            part = each[start : start + size]
            filled = part + part[-1:] * (size - len(part))
            captions = [prompt for prompt, _ in filled]
            if captions != read:
                read, text = captions, self.text_encoder(captions)
            rng = SampleRng([s for _, s in filled], self.device)
            latent = self.generator.latent(size, rng)
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
                noisy = rng if noise == "random" else noise
                images = self.generator(latent, text, self.stage, truncation=truncation, noise=noisy).image
            yield images[: len(part)].float().clamp(-1, 1)


# ---- model folders


def save_model(
    folder: str | Path,
    generator_state: Mapping[str, Tensor],
    config: Config,
    text_dim: int,
    kimg: float,
    stage: Stage | None = None,
    discriminator_state: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    beside: Sequence[str] = (),
) -> None:
    """Writes a model folder. dtype=torch.float16 halves it, for shipping; None keeps each tensor's own type.

    stage: where its growth stands, which is how it will draw; None: finished. beside: files that lie in the folder
    already, whose SHA-256 belongs into model.json too.
    model.json is written last, so a folder that has it is complete. A full disk raises OSError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights.write(folder / WEIGHTS, generator_state, dtype)
    if discriminator_state is not None:
        weights.write(folder / CRITIC, discriminator_state, dtype)
    present = [folder / name for name in (WEIGHTS, CRITIC, *beside) if (folder / name).is_file()]
    description = {
        "format": FORMAT,
        "version": __version__,
        "kimg": kimg,
        "text_dim": text_dim,
        "stage": asdict(stage or Stage(config.model.resolution)),
        "sha256": {file.name: sha256(file) for file in present},
        "config": asdict(config),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_model(path: str | Path | None = None, device: str | torch.device | None = "cpu") -> Model:
    """A model from a run (its newest checkpoint), a checkpoint, a model folder, or a run's or shipped model's name.

    None takes the run whose checkpoint is newest, or else the model that ships with the package. device None: cuda
    where there is one.
    Raises UserError with one line where there is no such model or it cannot be read.
    """
    device = find_device(device)
    folder = find_model(path)
    config, text_dim, kimg, stage, digests = read_description(folder / DESCRIPTION)
    try:
        text_encoder = load_text_encoder(named_by(config.encoders.text, folder), device)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    if text_encoder.dim != text_dim:
        raise UserError(
            f"{folder}: trained with a text encoder of width {text_dim}, but encoders.text={config.encoders.text} "
            f"has {text_encoder.dim}; put the encoder it was trained with there"
        )
    sizes = (text_encoder.dim, text_encoder.word_dim)
    generator = weights.load(folder / WEIGHTS, digests, lambda: build.generator(config, *sizes))
    generator = generator.eval().requires_grad_(False).to(device)
    return Model(generator, text_encoder, config, kimg, folder, device, stage, digests)


def load_discriminator(model: Model) -> Callable[[Tensor, Text], Judgement] | None:
    """The discriminator that a model was trained against, for pictures one by one: what one is worth does not depend
    on which others are judged beside it. None where the model's folder has none."""
    if not (model.path / CRITIC).is_file():
        return None
    config = model.config
    if trunk := getattr(config.discriminator, "trunk", ""):
        trunk = named_by(trunk, model.path)
        config = replace(config, discriminator=replace(config.discriminator, trunk=trunk))
    sizes = (model.text_encoder.dim, model.text_encoder.word_dim)
    critic: Any = weights.load(model.path / CRITIC, model.digests, lambda: build.discriminator(config, *sizes))
    critic.judge_alone()
    return partial(critic.eval().requires_grad_(False).to(model.device), stage=model.stage)


def find_model(path: str | Path | None = None) -> Path:
    """The model folder that load_model reads for a path."""
    runs = {p: newest for p in RUNS.glob("*") if (newest := newest_checkpoint(p))}
    if path is None:
        if runs:
            return max(runs.values(), key=lambda p: (p / DESCRIPTION).stat().st_mtime)
        if (SHIPPED / DESCRIPTION).is_file():
            return SHIPPED
        raise UserError("no model: no run under runs/ has a checkpoint; train one: accelerate launch t2i/train.py")
    for folder in (Path(path), RUNS / path, SHIPPED.parent / path):
        if (folder / DESCRIPTION).is_file() and (folder / WEIGHTS).is_file():
            return folder
        if newest := newest_checkpoint(folder):
            return newest
        if folder.is_dir():
            if (folder / "config.yaml").is_file():
                raise UserError(f"checkpoint {path}: this run has no checkpoint yet; wait for it or train it further")
            raise UserError(f"checkpoint {path}: no model there (a folder with {WEIGHTS} and {DESCRIPTION})")
        if folder.is_file():
            raise UserError(f"checkpoint {path}: is a file; give the folder of a run or a checkpoint")
    known = [str(p) for p in runs] + [SHIPPED.name] * (SHIPPED / DESCRIPTION).is_file()
    raise UserError(f"checkpoint {path}: not found; {closest(str(path), known) if known else 'there are no runs yet'}")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; training writes one under another name until it is complete."""
    steps = [p for p in run.glob("checkpoints/*") if p.name.isdecimal() and (p / DESCRIPTION).is_file()]
    return sorted(steps, key=lambda p: int(p.name))


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run's folder."""
    return next(reversed(checkpoints(run)), None)


def read_description(path: Path) -> tuple[Config, int, float, Stage, dict[str, str]]:
    """model.json → config, text_dim, kimg, stage, digests of files."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); {AGAIN}") from None
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise UserError(f"{path}: not the description of a model; {AGAIN}")
    written = f"written by t2i {values.get('version')}, this is t2i {__version__}"
    if values["format"] != FORMAT:
        remedy = "update t2i" if values["format"] > FORMAT else "use the t2i that wrote it"
        raise UserError(f"{path}: format {values['format']}, {written} which reads format {FORMAT}; {remedy}")
    try:
        config = configuration.from_dict(values["config"])
        stage = Stage(int(values["stage"]["resolution"]), float(values["stage"]["alpha"]))
        if stage.resolution not in (stages.resolutions(config) or (config.model.resolution,)):
            raise UserError(f"stage.resolution={stage.resolution}: none of the config's")
        if not 0 <= stage.alpha <= 1:
            raise UserError(f"stage.alpha={stage.alpha}: from 0 to 1")
        kimg, digests = float(values["kimg"]), values.get("sha256", {})
        if not math.isfinite(kimg) or not all(isinstance(x, str) for x in [*digests, *digests.values()]):
            raise ValueError("kimg or sha256 is none")
        return config, int(values["text_dim"]), kimg, stage, dict(digests)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: {getattr(error, 'full_key', '') or 'config'}: {reason}; {written}") from None
    except (UserError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {one_line(error)}; {written}") from None
    except KeyError as error:
        raise UserError(f"{path}: lacks {error}; {AGAIN}") from None
