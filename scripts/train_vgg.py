"""Trains a small VGG on captioned shards, for the picture-picture losses where no ImageNet VGG is at hand.

    python scripts/train_vgg.py --shards shards/scenes-train-64 --out my-vgg.safetensors
    accelerate launch t2i/train.py encoders.vgg=my-vgg.safetensors loss.img_img_vgg.weight=0.1

It learns to tell which words the captions of a picture use, from the averages over the picture of every layer that
the losses read. The file holds float16 weights in torchvision's naming.
"""

import argparse
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
from t2i.errors import UserError, run_command
from t2i.interfaces import Batch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--out", type=Path, required=True, help="weight file to write, .safetensors")
    add("--steps", type=int, default=1500, help="default %(default)s")
    add("--batch", type=int, default=64, help="pictures a step (default %(default)s)")
    add("--lr", type=float, default=2e-3, help="highest learning rate (default %(default)s)")
    add("--widths", type=int, nargs="+", default=[8, 16, 32, 64], help="channels of each block of two convolutions")
    add("--words", type=int, default=200, help="so many of the most frequent words are told (default %(default)s)")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


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


def main() -> None:
    a = arguments()
    if a.out.suffix != ".safetensors":
        raise UserError(f"--out {a.out}: name a .safetensors file")
    for name in ("steps", "batch", "words"):
        if getattr(a, name) < 1:
            raise UserError(f"--{name} {getattr(a, name)}: must be 1 or more")
    torch.manual_seed(a.seed)
    loader = Loader(a.shards, a.batch, seed=a.seed, workers=0, two_captions=True)
    known = vocabulary(islice(iter(loader), 50), a.words)
    vgg = Vgg(start(a.widths)).to(a.device).requires_grad_(True)
    head = nn.Linear(sum(vgg.layers.values()), len(known)).to(a.device)
    optimizer = torch.optim.AdamW([*vgg.parameters(), *head.parameters()], a.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, a.lr, total_steps=a.steps)
    average, share = 0.0, torch.full((len(known),), 0.5, device=a.device)
    guess = 0.0
    with tqdm(total=a.steps, unit="step", disable=None) as bar:
        for step, batch in enumerate(islice(iter(loader), a.steps)):
            told = torch.zeros(len(batch), len(known), device=a.device)
            for row, found in enumerate(words(batch)):
                told[row, [known[word] for word in found if word in known]] = 1
            pooled = torch.cat(list(vgg.pooled(batch.image.to(a.device)).values()), 1)
            loss = F.binary_cross_entropy_with_logits(head(pooled), told)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            beta = min(0.98, step / (step + 1))  # running means, of the loss and of that of guessing by frequency
            share = beta * share + (1 - beta) * told.mean(0)
            plain = F.binary_cross_entropy(share.clamp(1e-6, 1 - 1e-6).expand_as(told), told)
            average = beta * average + (1 - beta) * float(loss.detach())
            guess = beta * guess + (1 - beta) * float(plain)
            bar.update()
            bar.set_postfix_str(f"loss {average:.4f}, without a look {guess:.4f}")
    weights = {}
    for block, layers in enumerate(vgg.blocks):
        for n, conv in enumerate(layers.children()):
            for part in ("weight", "bias"):
                weights[f"features.{5 * block + 2 * n}.{part}"] = getattr(conv, part).detach().half().cpu().contiguous()
    made = f"train_vgg.py --shards {Path(a.shards).name} --steps {a.steps} --seed {a.seed}"
    try:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, a.out, {"made": made, "loss": f"{average:.4f}", "loss_of_frequencies": f"{guess:.4f}"})
    except OSError as error:
        raise UserError(f"--out {a.out}: {error.strerror}; choose another file") from None
    print(f"{a.out}: cross-entropy of {len(known)} words {average:.4f}, without a look at pictures {guess:.4f}")


if __name__ == "__main__":
    run_command(main)
