"""What scripts/score.py does: judges a model's or a folder's pictures, or an encoder, and writes scores as JSON."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from t2i.metrics import (
    clip_score,
    compare,
    floors,
    intervals,
    metric,
    nearest,
    networks,
    paper,
    protocol,
    references,
    sources,
    suite,
)  # fmt: skip
from t2i.metrics.networks import Settings
from t2i.metrics.request import MOST, Request
from t2i.model import load_model
from t2i.version import __version__


def run(r: Request, out: Sequence[Path] = (), axes: Sequence[str] | None = None) -> None:
    """Judges, prints a table, writes the JSON; of several truncations one each, and a table and a curve of all. Several
    processes of accelerate launch share the work. out: further files of the table and the curve; axes: its scores."""
    for path in out:
        paper.check(path)
    if r.save_captions:
        save_captions(r)
        return
    if r.json:
        check_writable(r.json)  # should be known before the work, not after
    # As Accelerator does it: several processes of accelerate launch on CPUs.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    device = str(state.device if state.num_processes > 1 else find_device(r.device))
    try:
        if r.save_reference:
            save_reference(r, device)
            return
        written = []
        for result, captions in asked(r, device):
            if state.is_main_process:
                written.append(write(r, result, captions))
        if r.ladder and state.is_main_process:
            curve(written, out, axes)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


Judged = tuple[dict[str, Any], list[captions_of.Caption] | None]  # scores with all about them; captions to be kept


def asked(r: Request, device: str) -> Iterable[Judged]:
    """What is to be found out."""
    if r.agreement:
        return [agreement(r, device)]
    if r.floors:
        return [(floors.judge(r, device) | made(device), None)]
    if r.nearest:
        check_writable(r.nearest, "nearest")
        held_out = sources.Reference(r.reference or "", r.seed)
        return [(nearest.judge(r, judged(r, held_out, device), held_out, device) | made(device), None)]
    return score(r, device)


def write(r: Request, result: dict[str, Any], captions: list[captions_of.Caption] | None) -> Path:
    """Prints and writes one result, and its captions."""
    if "scores" in result:
        print(compare.table(result))
    path = r.json or default_path(r, result)
    if r.ladder:
        path = path.with_name(f"{path.stem}-psi{result['protocol']['truncation']:g}.json")
    files.write_figures(path, result)
    if captions and any(c.text for c in captions):
        saved = captions_of.listed(captions, r.reference, r.seed)
        files.write_figures(path.with_name(f"{path.stem}.captions.json"), saved)
    print(f"written to {path}")
    return path


def curve(written: Sequence[Path], out: Sequence[Path], axes: Sequence[str] | None) -> None:
    """The table of several truncations, and the first distance over CLIP score, or else the first score that is better
    high, unless `axes` names others."""
    found = compare.gather(written, free=("truncation",))
    print(compare.text(found))
    if not axes:
        better = {score: compare.better(score) for score in found.scores}
        scores = sorted(found.scores, key=lambda s: s != "clip_score")  # first where it is there
        both = [next((s for s in scores if better[s] == way), None) for way in ("higher", "lower")]
        axes = [s for s in both if s] if all(both) else None
    default = written[0].with_name(written[0].name.rpartition("-psi")[0] + "-truncations.png")
    for path in out or [default]:
        paper.write(found, path, axes)
        print(f"written to {path}")


def score(r: Request, device: str) -> Iterator[Judged]:
    """Judges, and says what was judged by what; and the captions. One a truncation, of which the reference is seen
    once. On other processes than the first without scores."""
    main_process = PartialState().is_main_process
    reference = references.find(r.reference, r.seed, r.resize) if r.reference else None
    settings = Settings(r.networks, reference is not None and reference.scenes, r.seed)
    source = judged(r, reference, device)
    chosen, left = suite.choose(r.names, settings, reference, source)
    judge = suite.Suite(
        chosen, settings, reference, reference_count=r.reference_count, pairs=r.pairs, parts=r.jackknife,
        device=device,
    )  # fmt: skip
    told: list[str] = []
    leaked = None
    if main_process:
        for reason, lacking in left.items():
            print(f"left out: {', '.join(lacking)}: {reason}", file=sys.stderr)
        if reference and isinstance(source, sources.Generated):
            leaked = leakage(source, reference, told)
            told += judge.trained_with(source)
    for psi in r.ladder or (None,):
        if psi is not None and isinstance(source, sources.Generated):
            source = replace(source, truncation=psi)
        result = judge.score(source)
        result.notes += told
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
            for name, reason in result.left_out.items():
                print(f"left out: {name}: {reason}", file=sys.stderr)
            for line in result.notes:
                print(f"note: {line}", file=sys.stderr)
            print(compare.subject_line(whole) + (f", ψ {psi:g}" if psi is not None else ""))
        yield whole | made(device), source.captions


def leakage(source: sources.Generated, reference: references.AnyReference, notes: list[str]) -> int | None:
    """How many reference pictures the model was trained on, where that can be known; what is to be said goes to the
    notes."""
    train = source.model.config.data.shards
    if not isinstance(reference, sources.Reference):
        notes.append(f"leakage was not looked for: {reference.said} does not say which pictures it is of")
        return None
    with suite.noting(notes):
        leaked = sources.overlap(train, reference)
    if leaked is None:
        notes.append(f"leakage was not looked for: the training shards {train} are not here")
    return leaked


def save_reference(r: Request, device: str) -> None:
    """Mean and covariance of the reference, as the metrics that need no more of it see it, as a file."""
    assert r.reference
    assert r.save_reference
    reference = references.find(r.reference, r.seed, r.resize)
    if isinstance(reference, references.Statistics):
        raise UserError(f"--save-reference {r.save_reference}: {reference.said} is such a file already")
    settings = Settings(r.networks, reference.scenes, r.seed)
    asked = metric.named(r.names) if r.names else metric.every()
    if r.names and (other := next((m.name for m in asked if not m.moments), None)):
        raise UserError(f"--save-reference {r.save_reference}: {other} needs more of pictures than mean and covariance")
    reasons = ((m.name, networks.missing(n, settings)) for m in asked for n in m.networks)
    absent = {name: reason for name, reason in reasons if reason}
    chosen = [m for m in asked if m.moments and m.name not in absent]
    if not chosen or (r.names and absent):
        told = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise UserError(f"--save-reference {r.save_reference}: no network to look through: {told}")
    judge = suite.Suite(chosen, settings, reference, reference_count=r.reference_count, device=device)
    seen = judge.look_at_reference()
    moments = {f: seen[f] for m in chosen for f in m.features}  # the first has the plain names
    if PartialState().is_main_process:
        fingerprints = {f: judge.networks[m.networks[0]].fingerprint for m in chosen for f in m.features}
        described = reference.describe(judge.reference_count)
        references.save(r.save_reference, moments, fingerprints, reference.resolution, described)
        names = ", ".join(f"{name} [{len(m.mean)}]" for name, m in moments.items())
        print(f"written to {r.save_reference}: {judge.reference_count} pictures of {reference.said}, {names}")


def judged(r: Request, reference: references.AnyReference | None, device: str) -> sources.Source:
    """The pictures to be judged, with their captions."""
    if r.pictures:
        folder = sources.Folder(r.pictures, r.captions, r.resize)
        if r.samples and r.samples != len(folder.captions):
            raise UserError(f"--samples {r.samples}: the folder has {len(folder.captions)} pictures, which are judged")
        return folder
    model = load_model(r.checkpoint, device)
    if r.captions:
        captions = preset(r) if r.preset else captions_of.read_captions(r.captions)
    else:
        assert reference is not None
        captions = reference.captions(min(r.samples or MOST, reference.count))
    if (r.samples or 0) > len(captions):
        where = r.captions or r.reference
        raise UserError(f"--samples {r.samples}: one picture a caption, and {where} has {len(captions)}")
    return sources.Generated(model, captions[: r.samples], r.seed, r.truncation, r.noise)


def preset(r: Request) -> list[captions_of.Caption]:
    """The captions of --preset, with a word on how many they are."""
    assert r.captions
    captions = captions_of.coco30k(r.captions)
    if len(captions) < captions_of.COCO30K:
        print(f"note: --preset {r.preset}: {r.captions} has {len(captions)} captioned pictures", file=sys.stderr)
    return captions


def save_captions(r: Request) -> None:
    """Writes the captions of --preset, for others to make pictures of and to check."""
    assert r.save_captions
    captions = preset(r)
    files.write_figures(r.save_captions, captions_of.listed(captions, None, 0), "--save-captions")
    told = f"{len(captions)} captions, SHA-256 of their annotation ids {captions_of.ids_digest(captions)}"
    print(f"written to {r.save_captions}: {told}")


def agreement(r: Request, device: str) -> Judged:
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
