"""A CLIP of two networks that were trained apart: an image network of timm's and a sentence model, joined by a linear
projection of each (as LiT, 2111.07991, but that the sentence model stays as it is).

Both networks are looked through once and the projections learn from what they said; then, if asked for, the last
blocks of the image network learn, too.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from tqdm import tqdm

from t2i.data.loader import Loader
from t2i.data.samples import Samples
from t2i.data.tars import BadSample
from t2i.encoders.clip import resample, standardised
from t2i.encoders.pretrained import source
from t2i.encoders.pretrained.folding import fold
from t2i.encoders.pretrained.hub import from_hub, reading
from t2i.encoders.trunk import load_network
from t2i.errors import UserError, one_line
from t2i.fit.options import TowerOptions
from t2i.fit.rates import adamw
from t2i.launch import precision
from t2i.losses.contrastive import info_nce
from t2i.rng import Rng

Features = Callable[[Any, Tensor], Tensor]  # image network, pictures [B, 3, H, W] in [-1, 1] → [B, C] float32
READ = 64  # pictures or captions looked at together
TUNED_BLOCKS = 2  # of an EfficientNet's seven or a vision transformer's twelve
TUNE_BATCH, TUNE_LR, HEAD_LR = 200, 3e-4, 5e-4
SMALL = 64  # side through which every second batch of the tuning goes, so that small pictures are known as well


class Heads(nn.Module):
    """Features of both networks, divided by their deviation, → the common space."""

    def __init__(self, image: Tensor, text: Tensor, options: TowerOptions):
        """image [N, C], text [M, C']: features of the training set."""
        super().__init__()
        self.image_mean, self.image_std, self.text_std = image.mean(0), deviation(image), deviation(text)
        self.image_dropout, self.text_dropout = nn.Dropout(options.image_dropout), nn.Dropout(options.text_dropout)
        self.image = nn.Linear(image.shape[1], options.embed_dim, device=image.device)
        self.text = nn.Linear(text.shape[1], options.embed_dim, bias=False, device=text.device)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0), device=image.device))

    def loss(self, image: Tensor, text: Tensor, same: Tensor) -> Tensor:
        """Symmetric InfoNCE of pictures [B, C] and their captions [B, C']; same [B, B]: no negatives of each other."""
        pictures = self.image(self.image_dropout((image - self.image_mean) / self.image_std))
        captions = self.text(self.text_dropout(text / self.text_std))
        return info_nce(pictures, captions, (-self.log_scale).exp(), same)

    @torch.no_grad()
    def into(self, network: Any) -> None:
        """As the projections of open_clip's model, which read the features as they are."""
        image, text = network.visual.head.proj, network.text.proj
        image.weight.copy_(self.image.weight / self.image_std)
        image.bias.copy_(self.image.bias - image.weight @ self.image_mean)
        text.weight.copy_(self.text.weight / self.text_std)
        network.logit_scale.copy_(self.log_scale)


def deviation(features: Tensor) -> Tensor:
    """[N, C] → [C], of what hardly ever varies a little more, so that nothing is divided by 0."""
    std = features.std(0)
    return std + 0.01 * std.mean()


def build(options: TowerOptions, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
    """Network with both towers' weights, tokenizer, and the network's config in open_clip's terms.

    Raises UserError where a tower cannot be read or open_clip cannot put it into a CLIP.
    """
    trunk = load_network(options.image).eval()
    known = trunk.pretrained_cfg
    side = known["input_size"][-1]
    if known.get("fixed_input_size") and side != options.resolution:
        raise UserError(f"--resolution {options.resolution}: {options.image} reads pictures of {side} alone")
    named = options.image.startswith("timm:") and known.get("tag")  # whose means and deviations are to be found again
    config = options.model(f"{known['architecture']}.{known['tag']}" if named else known["architecture"])
    network, tokenizer = assemble(config, options.text, options.context, options.seed)
    network.visual.trunk.load_state_dict(trunk.state_dict())
    with torch.no_grad():
        found = trunk(torch.zeros(1, 3, options.resolution, options.resolution)).shape[1:]
    if tuple(found) != (network.visual.head.proj.in_features,):
        raise UserError(f"--image {options.image}: its features {tuple(found)} are not those open_clip projects")
    return network.to(device).eval().requires_grad_(False), tokenizer, config


def assemble(config: dict[str, Any], text: str, context: int, seed: int) -> tuple[Any, Any]:
    """open_clip's model of a config, which learns where the pretrained text tower is found, and that tower's tokenizer.

    text: as --text. Raises UserError where it is not found or is none that open_clip can use.
    """
    where = source(text)
    config["text_cfg"] |= {"hf_model_name": where, "hf_tokenizer_name": where}

    def make() -> tuple[Any, Any]:
        torch.manual_seed(seed)
        return open_clip.CustomTextCLIP(**config), open_clip.tokenizer.HFTokenizer(where, context_length=context)

    if not Path(where).is_dir():
        if where.startswith((".", "/", "~")):
            raise UserError(f"--text {text}: no such folder: {Path(where).absolute()}")
        return from_hub(f"--text {text}", where, make)
    try:
        with reading():
            return make()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--text {text}: no BERT, RoBERTa or T5 that can be read ({one_line(error)})") from None


def train(network: Any, tokenizer: Any, shards: str, options: TowerOptions, device: torch.device,
          workers: int) -> list[float]:  # fmt: skip
    """Trains the projections, and the last image blocks if asked for, in place; returns the loss of every step."""
    config = network.visual.trunk.pretrained_cfg
    mean, std = (torch.tensor(config[key], device=device).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    half = precision("auto", device) == "bf16"

    def features(trunk: Any, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] → [B, C]; a CPU is slow at gradients of convolutions in bfloat16."""
        learns = device.type == "cpu" and torch.is_grad_enabled()
        image = standardised(image, options.resolution, mean, std)
        with torch.autocast(device.type, torch.bfloat16, enabled=half and not learns):
            return trunk(image).float()

    torch.manual_seed(options.seed)  # of the projections' start and of what is hidden
    samples = Samples(shards)
    with torch.no_grad():
        image, captions, owner = look(network, samples, features, device)
        table = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            text = read(network, tokenizer, list(table), device)
    heads = Heads(image, text, options)
    rows = [torch.tensor([table[c] for c in captions[a:b]]) for a, b in itertools.pairwise(owner)]
    losses = fit_heads(heads, image, text, rows, options)
    if options.tune:
        loader = Loader(shards, min(TUNE_BATCH, len(samples)), seed=options.seed, workers=workers, mirror=True)
        losses += tune(network, heads, loader, text, table, features, options)
    heads.into(network)
    return losses


def look(
    network: Any, samples: Samples, features: Features, device: torch.device
) -> tuple[Tensor, list[str], list[int]]:
    """Features [N, C] of all pictures that can be read, all their captions, and where each picture's begin, and end."""
    trunk = fold(copy.deepcopy(network.visual.trunk)).to(memory_format=torch.channels_last)
    found, captions, owner = [], [], [0]
    for start in tqdm(range(0, len(samples), READ), desc="looking at pictures", unit="batch"):
        images = []
        for number in range(start, min(start + READ, len(samples))):
            try:
                sample = samples.read(number)
            except BadSample as bad:
                tqdm.write(f"broken sample left out: {bad}")
                continue
            images.append(sample.image.to(device) / 127.5 - 1)
            captions += sample.captions
            owner.append(len(captions))
        alike = len({image.shape for image in images}) == 1
        found += [features(trunk, x) for x in ([torch.stack(images)] if alike else [image[None] for image in images])]
    return torch.cat(found), captions, owner


def read(network: Any, tokenizer: Any, captions: Sequence[str], device: torch.device) -> Tensor:
    """Features of captions [M, C] before the projection; those of one length together, which saves padding."""
    tower = network.text
    order = sorted(range(len(captions)), key=lambda row: len(captions[row]))
    found = []
    for start in tqdm(range(0, len(order), READ), desc="reading captions", unit="batch"):
        ids = tokenizer([captions[row] for row in order[start : start + READ]]).to(device)  # [B, L]
        attend = ids != tower.config.pad_token_id
        ids, attend = (x[:, : int(attend.sum(1).max())] for x in (ids, attend.long()))
        found.append(tower.pooler(tower.transformer(input_ids=ids, attention_mask=attend), attend).float())
    return torch.cat(found)[torch.tensor(order).argsort()]


def fit_heads(heads: Heads, image: Tensor, text: Tensor, rows: list[Tensor], options: TowerOptions) -> list[float]:
    """image [N, C], text [M, C'], rows: of every picture, its captions' rows of `text`."""
    batch = min(options.batch, len(image))
    steps = options.epochs * (len(image) // batch)
    optimizer, schedule = adamw([(heads, options.lr)], steps)
    losses: list[float] = []
    order = torch.zeros(0, dtype=torch.long)
    with tqdm(total=steps, desc="training heads", unit="step", mininterval=0.5) as bar:
        for step in range(steps):
            rng = Rng(options.seed, step)
            if len(order) < batch:
                order = torch.randperm(len(image), generator=rng.generator)
            chosen, order = order[:batch], order[batch:]
            draw = rng.rand(batch)
            own = torch.stack([rows[i][int(len(rows[i]) * u)] for i, u in zip(chosen.tolist(), draw)])
            same = own[:, None] == own
            losses.append(update(heads.loss(image[chosen], text[own], same.to(image.device)), heads, optimizer))
            schedule.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    return losses


def tune(
    network: Any,
    heads: Heads,
    loader: Loader,
    text: Tensor,
    table: dict[str, int],
    features: Features,
    options: TowerOptions,
) -> list[float]:
    """The last blocks of the image tower and the heads together, on random crops and mirrored pictures. Statistics of
    batch normalisation stay."""
    trunk = network.visual.trunk.to(memory_format=torch.channels_last)
    for part in tail(trunk, options):
        part.requires_grad_(True)
    steps = options.tune * math.ceil(loader.count / min(TUNE_BATCH, loader.count))
    optimizer, schedule = adamw([(heads, HEAD_LR), (trunk, TUNE_LR)], steps)
    losses: list[float] = []
    batches = iter(loader)
    with tqdm(total=steps, desc="tuning", unit="step", mininterval=0.5) as bar:
        for step in range(steps):
            batch = next(batches)
            draw = Rng(options.seed, step, 1).rand(len(batch.image), 3)
            side = (options.min_crop + (1 - options.min_crop) * draw[:, 0]).to(text.device)
            place = (1 - side)[:, None] * draw[:, 1:].to(text.device)
            image = resample(batch.image.to(text.device), SMALL if step % 2 else options.resolution, side, place)
            own = torch.tensor([table[caption] for caption in batch.captions])
            same = (own[:, None] == own) | (batch.image_id[:, None] == batch.image_id)
            loss = heads.loss(features(trunk, image), text[own], same.to(text.device))
            losses.append(update(loss, heads, optimizer))
            schedule.step()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    trunk.requires_grad_(False)
    return losses


def tail(trunk: Any, options: TowerOptions) -> list[nn.Module]:
    """The last blocks and all that stands behind them."""
    parts = dict(trunk.named_children())
    blocks = parts.get("blocks")
    if not isinstance(blocks, nn.Sequential):
        raise UserError(f"--tune {options.tune}: {options.image} has no blocks, as EfficientNets and ViTs have; use 0")
    behind = list(parts.values())[list(parts).index("blocks") + 1 :]
    return [*list(blocks)[-TUNED_BLOCKS:], *behind]


def update(loss: Tensor, heads: Heads, optimizer: torch.optim.Optimizer) -> float:
    """One step; returns the loss. UserError where it is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(f"the loss is {value}: try a smaller --lr")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        heads.log_scale.clamp_(0, math.log(100))
    return value
