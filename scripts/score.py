"""How good pictures are, by a protocol that is stored with every score.

    python scripts/score.py --checkpoint runs/x --reference shards/coco2014-val-256      a run, all that can be computed
    python scripts/score.py --pictures FOLDER --captions FILE --reference shards/...      any other system's pictures
    python scripts/score.py --compare a.json b.json                                       side by side, if comparable
    python scripts/score.py --agreement shards/... --clip NAME                            does the encoder agree with
                                                                                          the people who wrote captions?
Several processes: accelerate launch scripts/score.py ...
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

import t2i
from t2i.encoders.vgg import PREPROCESSING
from t2i.errors import UserError, run_command
from t2i.metrics import bootstrap, clip_score, compare, networks, sources, suite, table
from t2i.model import load_model

MOST = 30000  # pictures, where --samples does not say: the protocol of COCO


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add("--checkpoint", help="run, checkpoint or model folder (default: the newest run, or the shipped model)")
    add("--pictures", metavar="FOLDER", help="judge these pictures instead, in the order of their names")
    add("--captions", metavar="FILE", help="one a line, or a list saved by this command (default: of the reference)")
    add("--reference", metavar="SHARDS", help="real pictures of the same resolution")
    add("--reference-count", type=int, metavar="N", help="of the reference (default: all)")
    add("--metrics", help=f"of {','.join(table.METRICS)} (default: all that can be computed)")
    add("--samples", type=int, help=f"pictures, one a caption (default: {MOST}, or as many as there are captions)")
    add("--seed", type=int, default=0, help="of captions and latents (%(default)s)")
    add("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (%(default)s)")
    add("--noise", choices=("const", "random"), default="const", help="the generator's noise inputs (%(default)s)")
    add("--pairs", type=int, default=500, help="pairs of pictures of one caption, for diversity (%(default)s)")
    add("--bootstrap", type=int, default=20, help="resampled sets for intervals of FID and its kin; 0: no intervals")
    add("--inception", metavar="FILE", help="weights of FID's network, as torch-fidelity or pytorch-fid publish them")
    add("--clip", metavar="NAME", help="that judges, as encoders.clip in a configuration; never one trained against")
    add("--vgg", metavar="NAME", help="vgg16, vgg19 (torchvision's) or a file of their weights")
    add("--preprocessing", default="torchvision", choices=sorted(PREPROCESSING), help="that the VGG was trained with")
    add("--lpips-alex", metavar="FILE", help="torchvision's AlexNet, for lpips_diversity")
    add("--lpips-vgg", metavar="FILE", help="torchvision's VGG16, for ppl")
    add("--detector", metavar="MODULE:FUNCTION", help="for soa: pictures [N, 3, H, W] in [-1, 1] → COCO classes seen")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    add("--json", type=Path, metavar="FILE", help="scores and protocol (default: out/score-<what was judged>.json)")
    add("--compare", nargs="+", metavar="JSON", help="print these files side by side")
    add("--force", action="store_true", help="with --compare: even where the protocols differ")
    add("--agreement", metavar="SHARDS", help="how well --clip finds right captions of real pictures")
    return p


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    a = parser().parse_args(given)
    for name, least in (("samples", 2), ("reference_count", 2), ("pairs", 1), ("bootstrap", 0)):
        if getattr(a, name) is not None and getattr(a, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(a, name)}: {least} or more")
    return a


def main(given: list[str] | None = None) -> None:
    a = arguments(given)
    if a.compare:
        print(compare.compare(a.compare, a.force))
        return
    if a.json:
        write(a.json, {})  # what cannot be written should be known before the work, not after
    # As Accelerator does it: several processes of accelerate launch on CPUs.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    a.device = str(state.device) if state.num_processes > 1 else a.device
    try:
        result, captions = agreement(a) if a.agreement else score(a)
        if state.is_main_process:
            print(compare.table(result))
            path = a.json or default_path(a, result)
            write(path, result)
            if captions:
                write(path.with_suffix(".captions.json"), sources.listed(captions, a.reference, a.seed))
            print(f"written to {path}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def score(a: argparse.Namespace) -> tuple[dict[str, Any], list[sources.Caption]]:
    """Judges, and says what was judged by what; and the captions. On other processes than the first without scores."""
    main_process = PartialState().is_main_process
    files = networks.Files(a.inception, a.clip, a.vgg, a.preprocessing, a.lpips_alex, a.lpips_vgg, a.detector)
    reference = sources.Reference(a.reference, a.seed) if a.reference else None
    source = judged(a, reference)
    names = [n.strip() for n in a.metrics.split(",") if n.strip()] if a.metrics else None
    chosen, left = suite.choose(names, files, reference, source)
    judge = suite.Suite(
        chosen, files, reference, reference_count=a.reference_count, pairs=a.pairs, resamples=a.bootstrap,
        seed=a.seed, device=a.device,
    )  # fmt: skip
    if main_process:
        for reason, lacking in left.items():
            print(f"left out: {', '.join(lacking)}: {reason}", file=sys.stderr)
    result = judge.score(source)
    leaked = None
    if main_process and reference and isinstance(source, sources.Generated):
        with suite.noting(result.notes):
            train = source.model.config.data.shards
            leaked = sources.overlap(train, reference)
        if leaked is None:
            result.notes.append(f"leakage was not looked for: the training shards {train} are not here")
        result.notes += suite.trained_with(source, judge)
    if main_process:
        for line in result.notes:
            print(f"note: {line}", file=sys.stderr)
    whole = {
        "format": compare.FORMAT,
        "scores": result.scores,
        "intervals": result.intervals,
        "protocol": result.protocol,
        "fingerprint": compare.fingerprint(result.protocol),
        "subject": result.subject,
        "notes": result.notes,
        "leaked_reference_pictures": leaked,
    }
    if main_process:
        print(compare.subject_line(whole))
    return whole | made(a), source.captions


def judged(a: argparse.Namespace, reference: sources.Reference | None) -> sources.Source:
    """The pictures to be judged, with their captions."""
    if a.pictures:
        if a.checkpoint:
            raise UserError(f"--pictures {a.pictures}: leave out --checkpoint, or the pictures")
        folder = sources.Folder(a.pictures, a.captions)
        if a.samples and a.samples != len(folder.captions):
            raise UserError(f"--samples {a.samples}: the folder has {len(folder.captions)} pictures, which are judged")
        return folder
    model = load_model(a.checkpoint, a.device)
    if a.captions:
        captions = sources.read_captions(a.captions)
    elif reference:
        captions = reference.captions(min(a.samples or MOST, reference.count))
    else:
        raise UserError("no captions: give --reference SHARDS or --captions FILE")
    if (a.samples or 0) > len(captions):
        where = a.captions or a.reference
        raise UserError(f"--samples {a.samples}: one picture a caption, and {where} has {len(captions)}")
    return sources.Generated(model, captions[: a.samples], a.seed, a.truncation, a.noise)


def agreement(a: argparse.Namespace) -> tuple[dict[str, Any], None]:
    """Real pictures and the captions that people wrote: how often the encoder finds them to belong together."""
    reference = sources.Reference(a.agreement, a.seed)
    files = networks.Files(clip=a.clip)
    network = networks.load("clip", files, a.device, reference.scenes)
    count = min(a.samples or MOST, reference.count)

    def look(numbers: range) -> dict[str, torch.Tensor]:
        texts = [t for n in numbers for t in reference.all_captions(n)]
        owner = [n for n in numbers for _ in reference.all_captions(n)]
        images = networks.raw_features(reference.pick(numbers).to(a.device), network.of)
        return {"images": images, "texts": networks.sentences(texts, network.of), "owner": torch.tensor(owner)}

    seen = suite.spread(count, look, "pictures")
    rows: dict[str, torch.Tensor] = {}
    if seen:
        images, texts, owner = seen["images"], seen["texts"], seen["owner"]
        names = [t for n in range(count) for t in reference.all_captions(n)]
        rows = {"encoder_agreement": clip_score.agreement(images, texts, owner, names, a.seed)}
        rows |= {f"encoder_{k}": v for k, v in clip_score.retrieval(images, texts, owner).items()}
        print(f"{network.of.name}: {count} pictures of {a.agreement} with {len(names)} captions; chance agrees in 50 %")
    result = {
        "format": compare.FORMAT,
        "scores": {k: float(v.mean()) for k, v in rows.items()},
        "intervals": {k: bootstrap.of_mean(v, a.seed) for k, v in rows.items()},
        "protocol": {"resolution": reference.resolution, "samples": count, "seed": a.seed, "clip": network.fingerprint}
        | reference.describe(count),
        "subject": {"model": network.of.name, "kimg": None},
    }
    return result | made(a), None


def made(a: argparse.Namespace) -> dict[str, Any]:
    """When and by what."""
    versions = {"t2i": t2i.__version__, "torch": torch.__version__}
    return {"date": time.strftime("%Y-%m-%d"), "device": torch.device(a.device).type, "versions": versions}


def default_path(a: argparse.Namespace, result: dict[str, Any]) -> Path:
    """out/score-x-000000077.json."""
    what = Path(a.pictures or result["subject"]["model"])
    label = "-".join(p for p in what.parts[-3:] if p not in ("checkpoints", "/", "runs")).replace(":", "-")
    return Path("out") / f"{'agreement' if a.agreement else 'score'}-{label}.json"


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON; nothing, where the content is empty, but that it could be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not content:
            path.open("a").close()
        else:
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}; choose another file") from None


if __name__ == "__main__":
    run_command(main)
