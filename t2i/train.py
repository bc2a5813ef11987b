"""Trains a text-to-image GAN: accelerate launch t2i/train.py [configs/x.yaml] [key=value ...]

With no argument it trains the scenes model. key=value changes one setting, for example train.batch=16 or
loss.img_txt_clip.weight=0.5. A run lands in runs/<name>/ and continues there when started again.
"""

import copy
import fcntl
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from t2i import checkpoint, conditioning, config, evaluation, losses, parallel
from t2i.config import Config
from t2i.data.loader import Loader
from t2i.encoders.clip import load_clip
from t2i.encoders.text import load_text_encoder
from t2i.encoders.vgg import load_vgg
from t2i.errors import UserError, closest, run_command
from t2i.log import Log, describe
from t2i.model import backbone
from t2i.step import Run, train_step

DEFAULT = Path(__file__).parents[1] / "configs" / "scenes.yaml"


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    path = arguments.pop(0) if arguments and "=" not in arguments[0] else None
    if path is None and DEFAULT.is_file():
        path = str(DEFAULT)
    settings = config.load(path, arguments, devices=int(os.environ.get("WORLD_SIZE", 1)))
    accelerator = start(settings)
    run = build(settings, accelerator)
    folder = Path(settings.runs) / settings.name
    try:
        with claim(folder) if accelerator.is_main_process else nullcontext():
            train(run, accelerator, folder)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def start(settings: Config) -> Accelerator:
    """Devices, precision and process group."""
    if settings.train.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("train.precision=fp16: needs a CUDA device; use fp32 or bf16 here")
    accelerator = Accelerator()
    world = accelerator.num_processes
    share = settings.train.accumulate * world
    if settings.train.batch % share:
        raise UserError(
            f"train.batch={settings.train.batch}: must be a multiple of processes x train.accumulate = "
            f"{world} x {settings.train.accumulate}"
        )
    rows, group = settings.train.batch // share, settings.model.mbstd_group
    if rows > group and rows % group:
        raise UserError(
            f"model.mbstd_group={group}: must divide the {rows} pictures that a process takes at a time; "
            "change it or train.batch"
        )
    if accelerator.device.type == "cpu":  # accelerate launch asks for one thread; use the cores there are
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // local, 1))
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return accelerator


def build(settings: Config, accelerator: Accelerator) -> Run:
    """Networks, frozen encoders, optimisers and losses of a run, at step 0."""
    device = accelerator.device
    d_losses = losses.choose(losses.DISCRIMINATOR, settings.loss)
    g_losses = losses.choose(losses.GENERATOR, settings.loss)
    encoders, guides = settings.encoders, losses.through(g_losses)
    if settings.text.source != "captions":
        guides.add("clip")
    text_encoder = load_text_encoder(encoders.text, device)
    nets = backbone(settings.model.name)
    torch.manual_seed(settings.seed)  # the same first weights on every process
    layout = torch.channels_last if settings.train.channels_last else torch.contiguous_format
    G = nets.Generator(settings.model, text_encoder.dim, text_encoder.word_dim).to(device, memory_format=layout)
    compared = any(t.name == "word_region" for t in [*d_losses, *g_losses])  # heads are built only where a loss asks
    D = nets.Discriminator(settings.model, text_encoder.dim, text_encoder.word_dim if compared else 0)
    if learnt := losses.temperatures(d_losses):
        D.temperatures = learnt
    D = D.to(device, memory_format=layout)
    perturbed = settings.text.source == "image_nn"
    perturb = conditioning.Perturbation(text_encoder.dim).to(device) if perturbed else None
    fused = device.type in ("cuda", "cpu")

    def adam(options: config.Adam, *networks: nn.Module | None) -> torch.optim.Adam:
        parameters = [p for network in networks if network for p in network.parameters()]
        return torch.optim.Adam(parameters, options.lr, (options.beta1, options.beta2), options.eps, fused=fused)

    return Run(
        config=settings,
        G=G,
        D=D,
        G_ema=copy.deepcopy(G).eval().requires_grad_(False),
        text_encoder=text_encoder,
        clip=load_clip(encoders.clip, device) if "clip" in guides else None,
        vgg=load_vgg(encoders.vgg, encoders.vgg_preprocessing, device, layout) if "vgg" in guides else None,
        perturb=perturb,
        d_optimizer=adam(settings.optim.d, D),
        g_optimizer=adam(settings.optim.g, G, perturb),
        d_losses=d_losses,
        g_losses=g_losses,
        scaler=torch.amp.GradScaler(device.type, enabled=settings.train.precision == "fp16"),
        device=device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        ada_p=settings.ada.p if settings.ada.mode != "off" else 0.0,
        path_mean=torch.zeros((), device=device),
    )


def resume(run: Run, folder: Path) -> None:
    """Continues the newest checkpoint in the run's folder, if it may and there is one."""
    settings, found = run.config, checkpoint.folders(folder)
    if settings.resume not in ("auto", "never"):
        raise UserError(f"resume={settings.resume}: {closest(settings.resume, ('auto', 'never'))}")
    if found and settings.resume == "never":
        raise UserError(f"resume=never but {folder} has checkpoints; choose another name= or use resume=auto")
    if found:
        checkpoint.load(run, found[-1])


def train(run: Run, accelerator: Accelerator, folder: Path) -> None:
    """The loop: batches, steps, log, snapshots, checkpoints; leaves with a checkpoint on SIGTERM and Ctrl-C."""
    settings = run.config
    resume(run, folder)
    loader = Loader(
        settings.data.shards,
        settings.train.batch // settings.train.accumulate // run.world,
        seed=settings.seed,
        start=run.images,
        rank=run.rank,
        world=run.world,
        workers=settings.data.workers,
        mirror=settings.data.mirror,
        two_captions=any(t.name == "fake_fake" for t in run.g_losses),
        word_dropout=settings.data.word_dropout,
        paraphrase=settings.data.paraphrase,
        max_broken=settings.data.max_broken,
        cache=settings.data.cache,
        resolution=settings.model.resolution,
    )
    conditioning.check(run, loader)
    batches = iter(loader)
    judge = evaluation.prepare(run, folder)
    log, first = None, None
    if accelerator.is_main_process:
        (folder / "config.yaml").write_text(config.to_yaml(settings))
        first = next(batches)
        log = Log(folder, run, settings.log.prompts or sorted(set(first.captions)))
        log.say(describe(run, loader.count, folder))
    stop = stop_signal()
    deadline = time.monotonic() + (60 * settings.train.minutes or math.inf)
    goal = 1000 * settings.train.kimg
    try:
        while run.images < goal:
            rounds = []
            for _ in range(settings.train.accumulate):
                batch, first = (first, None) if first is not None else (next(batches), None)
                if log:
                    for broken in batch.broken:
                        log.say(f"skipped a broken sample: {broken}")
                rounds.append(batch.to(run.device))
            terms = train_step(rounds, run)
            leaving = parallel.any_of(stop.is_set() or time.monotonic() > deadline, run.device)
            if log:
                log.step(run, terms, loader.broken_count)
            if judge and (passed(settings.eval.every, run) or run.images >= goal):
                scores, seconds = judge(run)
                if log:
                    log.scores(run, scores, seconds)
            if log:
                if passed(settings.log.snapshot_kimg, run) or run.images >= goal or leaving:
                    log.snapshot(run)
                if passed(settings.log.checkpoint_kimg, run) or run.images >= goal or leaving:
                    checkpoint.save(run, folder)
            if leaving:
                break
    except UserError as error:
        last = checkpoint.folders(folder)
        kept = f"; last good checkpoint: {last[-1]}" if last else "; no checkpoint was written yet"
        raise UserError(f"{error}{kept}") from None
    finally:
        if log:
            log.write(run, loader.broken_count)
            log.close()
    if log:
        state = "stopped" if run.images < goal else "finished"
        print(f"{state} at {run.images / 1000:g} kimg: {folder}", flush=True)


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """The run's folder for this training alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; choose another folder with runs=") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is training there; wait, or choose another name=") from None
        yield


def passed(kimg: float, run: Run) -> bool:
    """True on the step that passes a multiple of so many kimg; 0 means never."""
    if kimg <= 0:
        return False
    return int(run.images / 1000 / kimg) > int((run.images - run.config.train.batch) / 1000 / kimg)


def stop_signal() -> threading.Event:
    """Set by the first SIGTERM or Ctrl-C; a second one ends the process at once."""
    event = threading.Event()

    def note(number, frame):
        event.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return event


if __name__ == "__main__":
    run_command(main)
