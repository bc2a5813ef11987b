"""What scripts/score.py does: judges a model's or a folder's pictures, or an encoder, and writes scores as JSON."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from t2i import files
from t2i.errors import UserError
from t2i.machine import find_device
from t2i.metrics import captions as captions_of
from t2i.metrics import clip_score, compare, floors, intervals, nearest, networks, protocol, sources, suite
from t2i.metrics.networks import Settings
from t2i.metrics.request import MOST, Request
from t2i.model import load_model
from t2i.version import __version__


def run(r: Request) -> None:
    """Judges, prints a table, writes the JSON. Several processes of accelerate launch share the work."""
    if r.json:
        check_writable(r.json)  # should be known before the work, not after
    # As Accelerator does it: several processes of accelerate launch on CPUs.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    device = str(state.device if state.num_processes > 1 else find_device(r.device))
    try:
        result, captions = asked(r, device)
        if state.is_main_process:
            if "scores" in result:
                print(compare.table(result))
            path = r.json or default_path(r, result)
            files.write_figures(path, result)
            if captions and any(c.text for c in captions):
                files.write_figures(
                    path.with_suffix(".captions.json"), captions_of.listed(captions, r.reference, r.seed)
                )
            print(f"written to {path}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def asked(r: Request, device: str) -> tuple[dict[str, Any], list[captions_of.Caption] | None]:
    """What is to be found out, and the captions of what was judged."""
    if r.agreement:
        return agreement(r, device)
    if r.floors:
        return floors.judge(r, device) | made(device), None
    if r.nearest:
        check_writable(r.nearest, "nearest")
        held_out = sources.Reference(r.reference or "", r.seed)
        return nearest.judge(r, judged(r, held_out, device), held_out, device) | made(device), None
    return score(r, device)


def score(r: Request, device: str) -> tuple[dict[str, Any], list[captions_of.Caption]]:
    """Judges, and says what was judged by what; and the captions. On other processes than the first without scores."""
    main_process = PartialState().is_main_process
    reference = sources.Reference(r.reference, r.seed) if r.reference else None
    settings = Settings(r.networks, reference is not None and reference.scenes, r.seed)
    source = judged(r, reference, device)
    chosen, left = suite.choose(r.names, settings, reference, source)
    judge = suite.Suite(
        chosen, settings, reference, reference_count=r.reference_count, pairs=r.pairs, parts=r.jackknife,
        device=device,
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
        result.notes += judge.trained_with(source)
    if main_process:
        for name, reason in result.left_out.items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
        for line in result.notes:
            print(f"note: {line}", file=sys.stderr)
    whole = {
        "format": compare.FORMAT,
        "scores": result.scores,
        "intervals": result.intervals,
        "protocol": result.protocol,
        "fingerprint": protocol.fingerprint(result.protocol),
        "subject": result.subject,
        "judges": {name: network.title for name, network in judge.networks.items() if network.title},
        "notes": result.notes,
        "left_out": result.left_out,
        "leaked_reference_pictures": leaked,
    }
    if main_process:
        print(compare.subject_line(whole))
    return whole | made(device), source.captions


def judged(r: Request, reference: sources.Reference | None, device: str) -> sources.Source:
    """The pictures to be judged, with their captions."""
    if r.pictures:
        folder = sources.Folder(r.pictures, r.captions, r.resize)
        if r.samples and r.samples != len(folder.captions):
            raise UserError(f"--samples {r.samples}: the folder has {len(folder.captions)} pictures, which are judged")
        return folder
    model = load_model(r.checkpoint, device)
    if r.captions:
        captions = captions_of.read_captions(r.captions)
    else:
        assert reference is not None
        captions = reference.captions(min(r.samples or MOST, reference.count))
    if (r.samples or 0) > len(captions):
        where = r.captions or r.reference
        raise UserError(f"--samples {r.samples}: one picture a caption, and {where} has {len(captions)}")
    return sources.Generated(model, captions[: r.samples], r.seed, r.truncation, r.noise)


def agreement(r: Request, device: str) -> tuple[dict[str, Any], None]:
    """Real pictures and the captions that people wrote: how often the CLIP finds them to belong together."""
    reference = sources.Reference(r.agreement or "", r.seed, setting="agreement")
    network = networks.load("clip", Settings(r.networks, reference.scenes, r.seed), device)
    count = min(r.samples or MOST, reference.count)

    def look(numbers: range) -> dict[str, torch.Tensor]:
        texts = [t for n in numbers for t in reference.all_captions(n)]
        owner = torch.tensor([n for n in numbers for _ in reference.all_captions(n)])
        return network.see(reference.pick(numbers).to(device), numbers) | network.read(texts) | {"owner": owner}

    seen = suite.in_blocks(count, look, "pictures")
    rows: dict[str, torch.Tensor] = {}
    owner = torch.zeros(0)
    if seen:
        images, texts, owner = seen["clip"], seen["clip_text"], seen["owner"]
        names = [t for n in range(count) for t in reference.all_captions(n)]
        rows = {"encoder_agreement": clip_score.agreement(images, texts, owner, names, r.seed)}
        rows |= {f"encoder_{k}": v for k, v in clip_score.retrieval(images, texts, owner).items()}
        print(f"{network.title}: {count} pictures of {r.agreement} with {len(names)} captions; chance agrees in 50 %")
    result = {
        "format": compare.FORMAT,
        "scores": {k: float(v.mean()) for k, v in rows.items()},
        # Of retrieval none: all pictures compete for each caption, so that rows are not independent.
        "intervals": {k: intervals.of_mean(v, owner) for k, v in rows.items() if k == "encoder_agreement"},
        "protocol": {"resolution": reference.resolution, "samples": count, "seed": r.seed, "clip": network.fingerprint}
        | reference.describe(count),
        "subject": {"model": network.title, "kimg": None},
    }
    return result | made(device), None


def made(device: str) -> dict[str, Any]:
    """When and by what."""
    versions = {"t2i": __version__, "torch": torch.__version__}
    return {"date": time.strftime("%Y-%m-%d"), "device": torch.device(device).type, "versions": versions}


def default_path(r: Request, result: dict[str, Any]) -> Path:
    """out/score-x-000000077.json."""
    what = Path(r.pictures or result["subject"]["model"])
    label = "-".join(p for p in what.parts[-3:] if p not in ("checkpoints", "/", "runs")).replace(":", "-")
    kind = "agreement" if r.agreement else "floors" if r.floors else "nearest" if r.nearest else "score"
    return Path("out") / f"{kind}-{label}.json"


def check_writable(path: Path, setting: str = "json") -> None:
    """UserError for a file that could not be written. Leaves none behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise UserError(f"--{setting} {path}: {error.strerror}; choose another file") from None
