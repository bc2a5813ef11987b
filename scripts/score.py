"""How good pictures are, by a protocol that is stored with every score.

    python scripts/score.py --checkpoint runs/x --reference shards/coco2014-val-256      a run, all that can be computed
    python scripts/score.py --pictures FOLDER --captions FILE --reference shards/...      any other system's pictures
    python scripts/score.py --compare a.json b.json                                       side by side, if comparable
    python scripts/score.py --agreement shards/... --clip NAME                            does the encoder agree with
                                                                                          the people who wrote captions?
Several processes: accelerate launch scripts/score.py ...
"""

import argparse
from pathlib import Path

from t2i import metrics
from t2i.errors import UserError, run_command
from t2i.metrics import networks


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add("--checkpoint", help="run, checkpoint or model folder (default: the newest run, or the shipped model)")
    add("--pictures", metavar="FOLDER", help="judge these pictures instead, in the order of their names")
    add("--captions", metavar="FILE", help="one a line, or a list saved by this command (default: of the reference)")
    add("--reference", metavar="SHARDS", help="real pictures of the same resolution")
    add("--reference-count", type=int, metavar="N", help="of the reference (default: all)")
    add("--metrics", help=f"of {','.join(metrics.known())} (default: all that can be computed)")
    add("--samples", type=int, help="pictures, one a caption (default: 30000, or as many as there are captions)")
    add("--seed", type=int, default=0, help="of captions and latents (%(default)s)")
    add("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (%(default)s)")
    add("--noise", choices=("const", "random"), default="const", help="the generator's noise inputs (%(default)s)")
    add("--pairs", type=int, default=500, help="pairs of pictures of one caption, for diversity (%(default)s)")
    add(
        "--bootstrap", type=int, default=20, metavar="N",
        help="scores that only a whole set has, as FID, are computed again of so many resampled sets, for their "
        "intervals (%(default)s); 0: no intervals at all",
    )  # fmt: skip
    judges = p.add_argument_group("networks that judge, where they are not in their usual place")
    for name, setting in networks.declared().items():
        judges.add_argument(
            metrics.option(name), metavar=setting.metavar, choices=setting.choices or None, default=setting.default,
            help=setting.help,
        )  # fmt: skip
    add("--device", help="(default: cuda, where there is one)")
    add("--json", type=Path, metavar="FILE", help="scores and protocol (default: out/score-<what was judged>.json)")
    add("--compare", nargs="+", metavar="JSON", help="print these files side by side")
    add("--force", action="store_true", help="with --compare: even where the protocols differ")
    add("--agreement", metavar="SHARDS", help="how well --clip finds right captions of real pictures")
    return p


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """UserError for what can be known to be wrong without looking at any file."""
    a = parser().parse_args(given)
    for name, least in (("samples", 2), ("reference_count", 2), ("pairs", 1), ("bootstrap", 0)):
        if getattr(a, name) is not None and getattr(a, name) < least:
            raise UserError(f"{metrics.option(name)} {getattr(a, name)}: {least} or more")
    a.metrics = [n.strip() for n in a.metrics.split(",") if n.strip()] if a.metrics else None
    metrics.check(a.metrics or [])
    if a.pictures and a.checkpoint:
        raise UserError(f"--pictures {a.pictures}: leave out --checkpoint, or the pictures")
    if a.compare and len(a.compare) < 2:
        raise UserError("--compare: give two files or more")
    if not (a.captions or a.reference or a.pictures or a.compare or a.agreement):
        raise UserError("no captions: give --reference SHARDS or --captions FILE")
    return a


def main(given: list[str] | None = None) -> None:
    a = vars(arguments(given))
    files, force = a.pop("compare"), a.pop("force")
    if files:
        from t2i.metrics.compare import compare

        print(compare(files, force))
        return
    import torch

    from t2i.metrics import scoring

    a["device"] = a["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    judges = {name: a.pop(name) for name in networks.declared()}
    scoring.run(scoring.Request(**a, networks=judges))


if __name__ == "__main__":
    run_command(main)
