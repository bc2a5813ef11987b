"""A small VGG of captioned shards, that learns to tell which words the captions of a picture use."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from t2i.data.loader import Loader
from t2i.encoders.vgg import Vgg
from t2i.errors import UserError
from t2i.fit.options import VggOptions
from t2i.interfaces import Batch

COUNTED = 50  # batches whose words are counted


def fit(shards: str, out: Path, options: VggOptions, device: torch.device) -> str:
    """Trains on `shards`, writes the weights to `out` (.safetensors) and returns what it came to, in a sentence.

    The words are read from the averages over the picture of every layer that the losses read. Raises UserError where
    the shards cannot be read or the file cannot be written.
    """
    torch.manual_seed(options.seed)
    loader = Loader(shards, options.batch, seed=options.seed, workers=0, two_captions=True)
    known = vocabulary(islice(iter(loader), COUNTED), options.words)
    vgg = Vgg(start(options.widths)).to(device).requires_grad_(True)
    loss, plain = train(vgg, known, islice(iter(loader), options.steps), options, device)
    made = f"train_vgg.py --shards {Path(shards).name} --steps {options.steps} --seed {options.seed}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights(vgg), out, {"made": made, "loss": f"{loss:.4f}", "loss_of_frequencies": f"{plain:.4f}"})
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; choose another file") from None
    return f"{out}: cross-entropy of {len(known)} words {loss:.4f}, without a look at pictures {plain:.4f}"


def start(widths: Sequence[int]) -> dict[str, Tensor]:
    """Random weights (He et al. 2015, 1502.01852, eq. 10) in torchvision's numbering of a VGG's layers."""
    weights, n, i = {}, 0, 3
    for o in widths:
        for _ in range(2):
            weights[f"features.{n}.weight"] = nn.init.kaiming_normal_(torch.empty(o, i, 3, 3))
            weights[f"features.{n}.bias"] = torch.zeros(o)
            n, i = n + 2, o
        n += 1  # the pooling
    return weights


def weights(vgg: Vgg) -> dict[str, Tensor]:
    """float16, in torchvision's naming."""
    found = {}
    for block, layers in enumerate(vgg.blocks):
        for n, conv in enumerate(layers.children()):
            for part in ("weight", "bias"):
                found[f"features.{5 * block + 2 * n}.{part}"] = getattr(conv, part).detach().half().cpu().contiguous()
    return found


def train(
    vgg: Vgg, known: dict[str, int], batches: Iterator[Batch], options: VggOptions, device: torch.device
) -> tuple[float, float]:
    """Trains in place; returns running means of the loss, and of that of guessing by the words' frequencies."""
    head = nn.Linear(sum(vgg.layers.values()), len(known)).to(device)
    optimizer = torch.optim.AdamW([*vgg.parameters(), *head.parameters()], options.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=options.steps)
    share = torch.full((len(known),), 0.5, device=device)
    average = guess = 0.0
    with tqdm(total=options.steps, unit="step", disable=None) as bar:
        for step, batch in enumerate(batches):
            told = torch.zeros(len(batch), len(known), device=device)
            for row, found in enumerate(words(batch)):
                told[row, [known[word] for word in found if word in known]] = 1
            pooled = torch.cat(list(vgg.pooled(batch.image.to(device)).values()), 1)
            loss = F.binary_cross_entropy_with_logits(head(pooled), told)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            beta = min(0.98, step / (step + 1))
            share = beta * share + (1 - beta) * told.mean(0)
            plain = F.binary_cross_entropy(share.clamp(1e-6, 1 - 1e-6).expand_as(told), told)
            average = beta * average + (1 - beta) * float(loss.detach())
            guess = beta * guess + (1 - beta) * float(plain)
            bar.update()
            bar.set_postfix_str(f"loss {average:.4f}, without a look {guess:.4f}")
    return average, guess


def words(batch: Batch) -> list[set[str]]:
    """The words of the two captions drawn of each picture."""
    assert batch.captions2 is not None
    return [set(re.findall(r"[a-z]+", f"{one} {two}".lower())) for one, two in zip(batch.captions, batch.captions2)]


def vocabulary(batches: Iterator[Batch], most: int) -> dict[str, int]:
    """The most frequent words, but for those of nearly every picture."""
    count: Counter[str] = Counter()
    pictures = 0
    for batch in batches:
        pictures += len(batch)
        count.update(word for found in words(batch) for word in found)
    kept = [word for word, times in count.most_common() if times < 0.9 * pictures][:most]
    return {word: n for n, word in enumerate(kept)}
