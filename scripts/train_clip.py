"""Trains a small CLIP on captioned shards and writes it as a folder that open_clip and t2i read.

    python scripts/train_clip.py --shards shards/scenes-train-64 --val shards/scenes-val-64 --out my-clip
    accelerate launch t2i/train.py encoders.text=my-clip encoders.clip=my-clip

The folder: open_clip_config.json (the model), model.safetensors (float16), vocabulary.json (its tokens) and
metrics.json (how it was trained, and how well it retrieves pictures and captions that it has not seen).

With --text hf:NAME_OR_FOLDER the text tower is a pretrained BERT, RoBERTa or T5: it stays as it is, a projection
is learnt, and the folder holds its config and tokenizer in place of vocabulary.json.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from t2i.data.loader import Loader
from t2i.data.manifest import read_manifest
from t2i.data.samples import Sample, Samples
from t2i.data.tars import BadSample
from t2i.encoders.clip import Clip, load_clip, resample
from t2i.encoders.pretrained import CONFIG
from t2i.encoders.pretrained.vocabulary import FILE as VOCABULARY
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.errors import UserError, run_command
from t2i.interfaces import Batch
from t2i.rng import Rng
from t2i.worlds import scenes

MEAN = STD = (0.5, 0.5, 0.5)  # the encoder then sees pictures in [-1, 1], as the generator makes them


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--val", required=True, help="pictures to be judged on, of the same kind and none of the same")
    add("--out", type=Path, required=True, help="folder to write")
    add("--steps", type=int, default=2000, help="default %(default)s")
    add("--batch", type=int, default=128, help="pictures a step; each is told from all others (default %(default)s)")
    add("--lr", type=float, default=1e-3, help="highest learning rate (default %(default)s)")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=0, help="processes that decode pictures (default %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--arch", choices=("vit", "resnet"), default="vit", help="image tower (default %(default)s)")
    add("--resolution", type=int, default=64, help="side of the pictures it sees (default %(default)s)")
    add("--width", type=int, help="channels of the image tower (default 96, of a resnet's first stage 16)")
    add("--layers", type=int, help="blocks of the image tower (default 3, of each of a resnet's four stages 1)")
    add("--patch", type=int, default=8, help="side of a vit's patches (default %(default)s)")
    add("--text", help="hf:NAME_OR_FOLDER of a pretrained text tower; else a small one is trained")
    add("--text-width", type=int, default=128, help="channels of the text tower (default %(default)s)")
    add("--text-layers", type=int, default=2, help="its blocks (default %(default)s)")
    add("--embed-dim", type=int, default=128, help="length of the common vectors (default %(default)s)")
    add(
        "--context",
        type=int,
        default=32,
        help="tokens read of a caption, start and end among them (default %(default)s)",
    )
    add("--min-count", type=int, default=1, help="rarer tokens are taken for unknown (default %(default)s)")
    add("--word-drop", type=float, default=0.05, help="share of the words hidden while learning (default %(default)s)")
    add("--min-crop", type=float, default=0.8, help="smallest side of a random crop, a share (default %(default)s)")
    return parser.parse_args()


def model_config(a: argparse.Namespace, vocab_size: int = 0) -> dict[str, Any]:
    """The model in open_clip's own terms. vocab_size: of a text tower that is trained from the start."""
    vision: dict[str, Any] = {"image_size": a.resolution}
    if a.arch == "vit":
        width = a.width or 96
        vision |= {"patch_size": a.patch, "width": width, "layers": a.layers or 3, "head_width": min(32, width)}
        if a.resolution % a.patch:
            raise UserError(f"--patch {a.patch}: must divide --resolution {a.resolution}")
    else:
        width = a.width or 16
        vision |= {"width": width, "layers": [a.layers or 1] * 4, "head_width": 64}
        if a.resolution % 32:
            raise UserError(f"--resolution {a.resolution}: must be a multiple of 32 for a resnet")
    if width % 2 or (a.arch == "vit" and width % vision["head_width"]):
        raise UserError(f"--width {width}: must be even, for a vit a multiple of {vision.get('head_width')}")
    heads = max(1, a.text_width // 32)
    if a.text_width % heads:
        raise UserError(f"--text-width {a.text_width}: must be a multiple of {heads} (its heads)")
    text: dict[str, Any] = {"context_length": a.context}
    if a.text:
        where = a.text.removeprefix("hf:")
        text |= {"hf_model_name": where, "hf_tokenizer_name": where, "hf_proj_type": "linear"}
    else:
        text |= {"vocab_size": vocab_size, "width": a.text_width, "heads": heads, "layers": a.text_layers}
    return {"embed_dim": a.embed_dim, "vision_cfg": vision, "text_cfg": text}


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """CLIP's symmetric loss (Radford et al. 2021, 2103.00020, fig. 3).

    image, text [B, C] unit length; same [B, B] bool: rows that are no negatives of each other.
    """
    eye = torch.eye(len(image), dtype=torch.bool, device=image.device)
    logits = (scale * image @ text.T).float().masked_fill(same & ~eye, -torch.inf)  # [B, B]
    target = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def same_rows(batch: Batch) -> Tensor:
    """[B, B] bool: of one picture, or with the same caption."""
    first: dict[str, int] = {}
    caption = torch.tensor([first.setdefault(c.strip().lower(), len(first)) for c in batch.captions])
    return (caption[:, None] == caption) | (batch.image_id[:, None] == batch.image_id).cpu()


def drop_words(ids: Tensor, tokenizer: CompactTokenizer, share: float, rng: Rng) -> Tensor:
    """Hides some words, so that the unknown token is learnt and no single word is relied on."""
    hidden = (rng.rand(*ids.shape) < share).to(ids.device) & (ids > 0) & (ids < tokenizer.start)
    return ids.masked_fill(hidden, tokenizer.unknown)


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest: a tenth of the steps up, then half a cosine down."""
    warm = max(1, steps // 10)
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def build(a: argparse.Namespace, samples: Samples) -> tuple[Any, Any, dict[str, Any]]:
    """Network, tokenizer and the network's config."""
    torch.manual_seed(a.seed)
    if not a.text:
        tokenizer = CompactTokenizer(collect(all_captions(samples), a.min_count), a.context)
        config = model_config(a, tokenizer.vocab_size)
        return open_clip.CLIP(**config).to(a.device), tokenizer, config
    config = model_config(a)
    where = config["text_cfg"]["hf_model_name"]
    try:
        network = open_clip.CustomTextCLIP(**config).to(a.device)
        network.lock_text_tower()
        return network, open_clip.tokenizer.HFTokenizer(where, context_length=a.context), config
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--text {a.text}: no BERT, RoBERTa or T5 that can be read ({reason})") from None


def train(network: Any, tokenizer: Any, batches: Iterator[Batch], a: argparse.Namespace) -> list[float]:
    """Trains in place; returns the loss of every step."""
    learnt = [p for p in network.parameters() if p.requires_grad]
    matrices, others = [p for p in learnt if p.ndim >= 2], [p for p in learnt if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.98), eps=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step + 1, a.steps))
    losses: list[float] = []
    network.train()
    if a.text:
        network.text.transformer.eval()
    with tqdm(total=a.steps, desc="training", unit="step", mininterval=0.5) as bar:
        for step in range(a.steps):
            batch = next(batches)
            rng = Rng(a.seed, step)
            image = batch.image.to(a.device)  # [B, 3, H, W]
            draw = rng.rand(len(image), 3).to(a.device)
            side = a.min_crop + (1 - a.min_crop) * draw[:, 0]
            image = resample(image, a.resolution, side, (1 - side)[:, None] * draw[:, 1:])
            ids = tokenizer(batch.captions)  # [B, L]
            if isinstance(tokenizer, CompactTokenizer):
                ids = drop_words(ids, tokenizer, a.word_drop, rng)
            loss = contrastive_loss(
                network.encode_image(image, normalize=True),
                network.encode_text(ids.to(a.device), normalize=True),
                network.logit_scale.exp(),
                same_rows(batch).to(a.device),
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                network.logit_scale.clamp_(0, math.log(100))
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise UserError(f"the loss is {losses[-1]} at step {step}: try a smaller --lr than {a.lr}")
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)
            bar.update()
    return losses


def all_captions(samples: Samples) -> Iterator[str]:
    """Every caption of the shards; no picture is decoded."""
    for shard in tqdm(samples.shards, desc="reading captions", unit="shard"):
        for number in range(shard.samples):
            try:
                yield from json.loads(bytes(shard.read(number)[1]["json"]))["captions"]
            except (BadSample, KeyError, ValueError):
                continue  # the loader counts and reports these when it meets them


def read_all(samples: Samples, limit: int) -> list[Sample]:
    """Up to `limit` readable samples, evenly spread."""
    found = []
    for number in range(0, len(samples), max(1, len(samples) // limit)):
        try:
            found.append(samples.read(number))
        except BadSample as bad:
            tqdm.write(f"broken sample left out: {bad}")
    return found[:limit]


def image_features(clip: Clip, samples: list[Sample]) -> Tensor:
    """[N, C]"""
    device = clip.mean.device
    with torch.no_grad():
        return torch.cat([clip.image_features(s.image[None].to(device) / 127.5 - 1) for s in samples])


def retrieval(clip: Clip, samples: list[Sample]) -> dict[str, Any]:
    """How often the own caption is among the nearest 1 and 5 of a picture, and the own picture of a caption.

    One caption a picture. A caption that several pictures have is right for each of them; but "A red train." still
    counts as wrong for the picture of a red train whose caption says "A train on the tracks.", so that the highest
    share to be had depends on the data.
    """
    captions = [s.captions[0] for s in samples]
    cosine = image_features(clip, samples) @ clip.text(captions).sentence.T  # [N pictures, N captions]
    equal = torch.tensor([[a == b for a in captions] for b in captions], device=cosine.device)
    own = cosine.diagonal()[:, None]
    found: dict[str, Any] = {"pictures": len(samples)}
    for name, scores in (("image_to_text", cosine), ("text_to_image", cosine.T)):
        better = ((scores > own) & ~equal).sum(1)
        found[name] = {f"r@{k}": round(float((better < k).float().mean()), 4) for k in (1, 5)}
    return found


def zero_shot(clip: Clip, samples: list[Sample], prompts: int = 8) -> dict[str, Any]:
    """Scenes only: how often the (colour, object) whose captions are nearest, of all pairs, is what the picture shows.

    Apart for pairs that training shows and pairs that it leaves out; `prompts` captions a pair, averaged.
    """
    pairs = scenes.pairs("all")
    captions = [p for pair in pairs for p, _, _ in scenes.prompts([pair], prompts, seed=1)]
    means = clip.text(captions).sentence.unflatten(0, (len(pairs), prompts)).mean(1)  # [pairs, C]
    best = (image_features(clip, samples) @ F.normalize(means, dim=1).T).argmax(1).tolist()
    found: dict[str, Any] = {"pairs": len(pairs)}
    for group in ("seen", "held_out"):
        known = set(scenes.pairs(group))
        right = []  # (colour, object) right?
        for sample, i in zip(samples, best):
            shown = sample.meta["attributes"]["objects"][0]
            if (shown["color"], shown["name"]) in known:
                right.append((pairs[i][0] == shown["color"], pairs[i][1] == shown["name"]))
        if right:
            share = torch.tensor(right).float()  # [N, 2]
            shares = {"color": share[:, 0], "object": share[:, 1], "both": share.prod(1)}
            found[group] = {"pictures": len(right)} | {k: round(float(v.mean()), 4) for k, v in shares.items()}
    return found


def main() -> None:
    a = arguments()
    least = {"steps": 1, "batch": 2, "resolution": 1, "width": 2, "layers": 1, "patch": 1, "text_width": 1,
             "text_layers": 1, "embed_dim": 1, "context": 3, "min_count": 1}  # fmt: skip
    for name, value in least.items():
        if (given := getattr(a, name)) is not None and given < value:
            raise UserError(f"--{name.replace('_', '-')} {given}: must be {value} or more")
    if not 0 < a.min_crop <= 1:
        raise UserError(f"--min-crop {a.min_crop}: a share above 0, at most 1")
    model_config(a)  # complains before the work starts
    val = Samples(a.val)
    loader = Loader(a.shards, a.batch, seed=a.seed, workers=a.workers)
    network, tokenizer, config = build(a, loader.samples)
    sizes = {
        "image_tower": sum(p.numel() for p in network.visual.parameters()),
        "all": sum(p.numel() for p in network.parameters()),
    }
    print(
        f"{loader.count} pictures, {sizes['all'] / 1e6:.2f} M weights, {sizes['image_tower'] / 1e6:.2f} M for pictures"
    )
    begin = time.monotonic()
    try:
        losses = train(network, tokenizer, iter(loader), a)
    except KeyboardInterrupt:
        raise UserError(f"stopped; nothing was written to {a.out}") from None
    seconds = time.monotonic() - begin

    a.out.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (a.out / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n")
    if isinstance(tokenizer, CompactTokenizer):
        (a.out / VOCABULARY).write_text(json.dumps(tokenizer.tokens, ensure_ascii=False) + "\n")
    else:
        network.text.config.save_pretrained(a.out)
        tokenizer.save_pretrained(a.out)
    state = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    (a.out / "model.safetensors").write_bytes(save(state))

    clip = load_clip(str(a.out), a.device)  # what was written is what is judged
    samples = read_all(val, 2000)
    spread = samples[:: max(1, len(samples) // 500)][:500]
    options = {k: v for k, v in vars(a).items() if k not in ("shards", "val", "out", "device", "workers")}
    metrics: dict[str, Any] = {
        "options": options, "source": (read_manifest(Path(a.shards)) or {}).get("source"), "weights": sizes,
        "pictures": loader.count,
        "seconds": round(seconds), "loss": round(sum(losses[-50:]) / len(losses[-50:]), 4),
        "retrieval": retrieval(clip, spread),
    }  # fmt: skip
    if all("attributes" in s.meta for s in samples):
        metrics["zero_shot"] = zero_shot(clip, samples)
    (a.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(json.dumps({k: metrics[k] for k in ("retrieval", "zero_shot") if k in metrics}, indent=1))
    print(f"written to {a.out}")


if __name__ == "__main__":
    run_command(main)
