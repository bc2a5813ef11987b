"""How far a model's pictures are from real ones: python scripts/score.py --checkpoint runs/x --reference shards/val
--vgg vgg19.pth

Prints the Fréchet distance of pooled VGG features, in all and a layer. It is labelled VGG and is not FID; compare only
scores of equally many pictures of one reference and one VGG file. The captions are those of the reference pictures.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from t2i.data.loader import Loader
from t2i.encoders.vgg import PREPROCESSING, load_vgg
from t2i.errors import UserError, run_command
from t2i.metrics import vgg_distance
from t2i.sampling import load_model


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", help="run, checkpoint or model folder (default: the newest run, or the shipped model)")
    add("--reference", required=True, help="shards of real pictures at the model's resolution")
    add("--vgg", required=True, help="vgg16, vgg19 (torchvision's) or a file of their weights")
    add("--preprocessing", default="torchvision", choices=sorted(PREPROCESSING), help="that the VGG was trained with")
    add("--samples", type=int, default=1000, help="pictures of each kind (default %(default)s)")
    add("--seed", type=int, default=0)
    add("--truncation", type=float, default=1.0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    if a.samples < 2:
        raise UserError(f"--samples {a.samples}: 2 or more")
    model = load_model(a.checkpoint, a.device)
    vgg = load_vgg(a.vgg, a.preprocessing, a.device)
    batch = min(50, a.samples)
    loader = Loader(a.reference, batch, seed=a.seed, workers=0, resolution=model.resolution)
    if a.samples > loader.count:
        raise UserError(f"--samples {a.samples}: {a.reference} has {loader.count} pictures; ask for at most so many")
    real, fake, done = [], [], 0
    batches = iter(loader)
    with tqdm(total=a.samples, unit="picture", leave=False, disable=None) as bar:
        while done < a.samples:
            now = next(batches)
            n = min(batch, a.samples - done)
            made = model(now.captions[:n], seeds=range(a.seed + done, a.seed + done + n), truncation=a.truncation)
            real.append(vgg_distance.features(now.image[:n], vgg))
            fake.append(vgg_distance.features(made, vgg))
            done += n
            bar.update(n)
    figures = vgg_distance.compute(torch.cat(fake), torch.cat(real), vgg.layers)
    print(f"model {model.path} ({model.kimg:g} kimg), {a.samples} pictures, reference {a.reference}")
    for name, value in figures.items():
        print(f"{name:<16}{value:>12.2f}")
    if a.json:
        made_of = {"model": str(model.path), "kimg": model.kimg, "samples": a.samples, "reference": a.reference}
        stamp = {"vgg": a.vgg, "truncation": a.truncation, "seed": a.seed, "date": time.strftime("%Y-%m-%d")}
        a.json.parent.mkdir(parents=True, exist_ok=True)
        a.json.write_text(json.dumps(made_of | stamp | {"scores": figures}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
