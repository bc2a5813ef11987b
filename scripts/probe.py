"""How often generated pictures of a drawn world show what their prompts ask for.

    python scripts/probe.py                        the newest run, or else the model that ships
    python scripts/probe.py --checkpoint runs/x    a run, a checkpoint or a model folder
    python scripts/probe.py --train                makes the judging classifier anew
    python scripts/probe.py --world binding --checkpoint runs/y
                                                   a model of pictures of two objects: has each the colour it was given?
    python scripts/probe.py --categories           one object, colours, counting, position, ... a row a category

Prompts name pairs of colour and object, or two such pairs: some that training shows, some that it never does. The same
shares of drawn pictures are the ceiling: what the classifier makes of pictures that are right. Those of pictures that
show no object (noise, the ground alone, an ellipse or a scribble in the object's colour and place, the object warped or
blurred beyond knowing) are the floor: what it makes of pictures that are wrong. All have the size of the model's.
"""

import argparse
from pathlib import Path

from t2i import probes
from t2i.errors import run_command
from t2i.options import DEVICE, Parser, at_least


def parser() -> Parser:
    p = Parser(__doc__)
    add = p.add_argument
    add("--checkpoint", help="run, checkpoint or model folder (default: the newest run, or the shipped model)")
    add("--world", choices=probes.known(), default="scenes", help="of the shards that it was trained on (%(default)s)")
    add("--count", type=int, default=500, help="prompts of seen pairs, and as many of held-out ones (%(default)s)")
    add("--seed", type=int, default=0, help="of the prompts and the latents (%(default)s)")
    add("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (%(default)s)")
    add("--noise", choices=("const", "random"), default="const", help="the generator's noise inputs (%(default)s)")
    add("--categories", action="store_true", help="a table by category, as GenEval has it; --count prompts in each")
    add("--device", help=DEVICE)
    add("--json", type=Path, help="write all numbers, those of every object too, to this file, as one flat mapping")
    add("--probe", type=Path, help="folder of the classifier (the shipped one)")
    add("--train", action="store_true", help="train the classifier and write it to --probe")
    add("--scenes", type=int, default=9000, help="with --train: how many to draw (%(default)s)")
    add("--epochs", type=int, default=8, help="with --train: passes over them (%(default)s)")
    return p


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    o = parser().parse_args(given)
    at_least(o, count=1, scenes=1, epochs=1)
    return o


def main(given: list[str] | None = None) -> None:
    o = arguments(given)

    from t2i.metrics import categories  # only now: a mistake above should not wait for torch
    from t2i.probes import measure

    if o.train:
        measure.train(o.world, o.scenes, o.epochs, o.seed, o.probe)
    else:
        judge = categories.judge if o.categories else measure.judge
        judge(measure.Asked(o.world, o.checkpoint, o.count, o.seed, o.truncation, o.noise, o.device, o.probe, o.json))


if __name__ == "__main__":
    run_command(main)
