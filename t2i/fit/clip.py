"""A small CLIP (Radford et al. 2021, 2103.00020) of captioned shards, as a folder that open_clip and t2i read."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from t2i.data.loader import Loader
from t2i.data.manifest import read_manifest
from t2i.data.samples import Sample, Samples
from t2i.data.tars import BadSample
from t2i.encoders.clip import load_clip, resample
from t2i.encoders.pretrained.network import CONFIG
from t2i.encoders.pretrained.vocabulary import FILE as VOCABULARY
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.errors import UserError
from t2i.fit import towers
from t2i.fit.options import ClipOptions, TowerOptions
from t2i.fit.rates import adamw
from t2i.fit.retrieval import retrieval, zero_shot
from t2i.interfaces import Batch
from t2i.losses.contrastive import info_nce
from t2i.rng import Rng

MEAN = STD = (0.5, 0.5, 0.5)  # the encoder then sees pictures in [-1, 1], as the generator makes them
JUDGED, RETRIEVED = 2000, 1000  # pictures that tell how good it is, and those of them that stand against each other


def fit(
    shards: str, val: str, out: Path, options: ClipOptions | TowerOptions, device: torch.device, workers: int = 0
) -> dict[str, Any]:
    """Trains on `shards`, writes the folder `out`, judges it on the shards `val` and returns what metrics.json holds.

    Raises UserError where shards or a pretrained text tower cannot be read, the loss is not finite, or the user stops
    it (then nothing is written).
    """
    unseen = Samples(val)
    samples = Samples(shards)
    if isinstance(options, TowerOptions):
        network, tokenizer, config = towers.build(options, device)
    else:
        network, tokenizer, config = build(options, samples, device)
    count = lambda module: sum(p.numel() for p in module.parameters())
    weights = {"image_tower": count(network.visual), "all": count(network)}
    print(f"{len(samples)} pictures, {weights['all'] / 1e6:.2f} M weights, "
          f"{weights['image_tower'] / 1e6:.2f} M for pictures")  # fmt: skip
    begin = time.monotonic()
    try:
        if isinstance(options, TowerOptions):
            losses = towers.train(network, tokenizer, shards, options, device, workers)
        else:
            loader = Loader(shards, options.batch, seed=options.seed, workers=workers)
            losses = train(network, tokenizer, iter(loader), options, device)
    except KeyboardInterrupt:
        raise UserError(f"stopped; nothing was written to {out}") from None
    seconds = time.monotonic() - begin
    write(out, network, tokenizer, config)

    clip = load_clip(str(out), device)  # what was written is what is judged
    judged = read_all(unseen, JUDGED)
    metrics: dict[str, Any] = {
        "options": asdict(options), "source": (read_manifest(Path(shards)) or {}).get("source"), "weights": weights,
        "pictures": len(samples), "seconds": round(seconds), "loss": round(sum(losses[-50:]) / len(losses[-50:]), 4),
        "retrieval": retrieval(clip, judged[:: max(1, len(judged) // RETRIEVED)][:RETRIEVED]),
    }  # fmt: skip
    if all("attributes" in s.meta for s in judged):
        metrics["zero_shot"] = zero_shot(clip, judged)
    metrics["cpu_seconds"] = round(time.process_time())  # of everything, the judging too
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def build(options: ClipOptions, samples: Samples, device: torch.device) -> tuple[Any, Any, dict[str, Any]]:
    """Network, tokenizer and the network's config in open_clip's terms."""
    if options.text:
        config = options.model()
        network, tokenizer = towers.assemble(config, options.text, options.context, options.seed)
        network.lock_text_tower()
        return network.to(device), tokenizer, config
    tokenizer = CompactTokenizer(collect(all_captions(samples), options.min_count), options.context)
    config = options.model(tokenizer.vocab_size)
    torch.manual_seed(options.seed)
    return open_clip.CLIP(**config).to(device), tokenizer, config


def all_captions(samples: Samples) -> Iterator[str]:
    """Every caption of the shards; no picture is decoded."""
    for shard in tqdm(samples.shards, desc="reading captions", unit="shard"):
        for number in range(shard.samples):
            try:
                yield from json.loads(bytes(shard.read(number)[1]["json"]))["captions"]
            except (BadSample, KeyError, ValueError):
                continue  # the loader counts and reports these when it meets them


def train(
    network: Any, tokenizer: Any, batches: Iterator[Batch], options: ClipOptions, device: torch.device
) -> list[float]:
    """Trains in place by the symmetric InfoNCE of pictures and captions (figure 3); returns the loss of every step."""
    optimizer, schedule = adamw([(network, options.lr)], options.steps, eps=1e-6)
    losses: list[float] = []
    network.train()
    if options.text:
        network.text.transformer.eval()
    with tqdm(total=options.steps, desc="training", unit="step", mininterval=0.5) as bar:
        for step in range(options.steps):
            batch = next(batches)
            rng = Rng(options.seed, step)
            image = crop(batch.image.to(device), options, rng)
            ids = tokenizer(batch.captions)  # [B, L]
            if isinstance(tokenizer, CompactTokenizer):
                ids = drop_words(ids, tokenizer, options.word_drop, rng)
            pictures, captions = network.encode_image(image), network.encode_text(ids.to(device))  # [B, C]
            loss = info_nce(pictures, captions, (-network.logit_scale).exp(), same_rows(batch).to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                network.logit_scale.clamp_(0, math.log(100))
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise UserError(f"the loss is {losses[-1]} at step {step}: try a smaller --lr than {options.lr}")
            bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.3f}", refresh=False)
            bar.update()
    return losses


def crop(image: Tensor, options: ClipOptions, rng: Rng) -> Tensor:
    """image [B, 3, H, W] → random crops of it [B, 3, resolution, resolution]."""
    draw = rng.rand(len(image), 3).to(image.device)
    side = options.min_crop + (1 - options.min_crop) * draw[:, 0]
    return resample(image, options.resolution, side, (1 - side)[:, None] * draw[:, 1:])


def drop_words(ids: Tensor, tokenizer: CompactTokenizer, share: float, rng: Rng) -> Tensor:
    """Hides some words, so that the unknown token is learnt and no single word is relied on."""
    hidden = (rng.rand(*ids.shape) < share).to(ids.device) & (ids > 0) & (ids < tokenizer.start)
    return ids.masked_fill(hidden, tokenizer.unknown)


def same_rows(batch: Batch) -> Tensor:
    """[B, B] bool: of one picture, or with the same caption; such rows are no negatives of each other."""
    first: dict[str, int] = {}
    caption = torch.tensor([first.setdefault(c.strip().lower(), len(first)) for c in batch.captions])
    return (caption[:, None] == caption) | (batch.image_id[:, None] == batch.image_id).cpu()


def write(out: Path, network: Any, tokenizer: Any, config: dict[str, Any]) -> None:
    """The folder, in open_clip's layout, with float16 weights."""
    out.mkdir(parents=True, exist_ok=True)
    trunk = getattr(network.visual, "trunk", None)  # of timm, which knows what pictures it was trained on
    mean, std = (trunk.pretrained_cfg["mean"], trunk.pretrained_cfg["std"]) if trunk else (MEAN, STD)
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "squash"}
    if "hf_model_name" in config["text_cfg"]:  # what is found there now lies in this folder
        config["text_cfg"] |= {"hf_model_name": ".", "hf_tokenizer_name": "."}
    (out / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n")
    if isinstance(tokenizer, CompactTokenizer):
        (out / VOCABULARY).write_text(json.dumps(tokenizer.tokens, ensure_ascii=False) + "\n")
    else:
        network.text.config.save_pretrained(out)
        tokenizer.save_pretrained(out)
    state = {k: small(v).contiguous() for k, v in network.state_dict().items()}
    (out / "model.safetensors").write_bytes(save(state))


def small(value: Tensor) -> Tensor:
    """In float16, unless it is of integers or reaches beyond that type's range."""
    half = value.half()
    return half if value.is_floating_point() and half.isfinite().all() else value


def read_all(samples: Samples, limit: int) -> list[Sample]:
    """Up to `limit` readable samples, evenly spread."""
    found = []
    for number in range(0, len(samples), max(1, len(samples) // limit)):
        try:
            found.append(samples.read(number))
        except BadSample as bad:
            tqdm.write(f"broken sample left out: {bad}")
    return found[:limit]
