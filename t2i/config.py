"""What a run is made of. Dataclasses give defaults, types and documentation; a YAML names a run; dotted
overrides come last. Imports nothing of t2i but its error type."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from t2i.errors import UserError, closest


@dataclass
class Data:
    shards: str = "shards/scenes-train-64"  # folder, tar, glob with braces, http(s)://… or pipe:…
    mirror: bool = False  # flip half of the pictures, but never one whose caption says left or right
    workers: int = 1  # loader processes per training process; 0 decodes in the training process
    word_dropout: float = 0.0  # leave out each word of a caption with this probability
    paraphrase: float = 0.0  # with this probability mix the caption with another of the picture's
    max_broken: float = 0.01  # stop when more than this share of the samples read is broken
    cache: str = "shards/.cache"  # where remote shards are kept


@dataclass
class Encoders:
    # "scenes-clip" ships with the package; "folder/of/train_clip"; "open_clip:ARCH/TAG_OR_FILE"; "hf:NAME_OR_FOLDER"
    text: str = "scenes-clip"
    clip: str = "scenes-clip"  # image-text guidance; loaded only when a loss with weight asks for it
    vgg: str = "scenes-vgg"  # for picture-picture losses: shipped, vgg16, vgg19 or a weight file
    vgg_preprocessing: str = "torchvision"  # what its weights were trained on: torchvision, or caffe (BGR, 0 to 255)
    vgg_size: int = 128  # larger pictures are reduced to this side before VGG; 0 = never
    cut_size: float = 0.9  # smallest side of a random crop before CLIP, as a share of the picture; 1 = no crops
    stored: bool = True  # use the features that make_shards --clip stored, where the shards hold some


@dataclass
class Text:
    # What stands for a picture's caption in training: captions (the caption itself), or, for training without captions,
    # the picture's own CLIP feature: image (with noise 0.75 LAFITE-G) or image_nn (a learnt perturbation: LAFITE-NN)
    source: str = "captions"
    noise: float = 0.0  # share of a random unit vector in the sentence, which stays of unit length; LAFITE: 0.1


@dataclass
class Attention:
    """Resolutions (of StyleGAN3: sampling rates) at which networks attend; none = no attention and no cost."""

    g_self: list[int] = field(default_factory=list)  # the generator's places to each other
    d_self: list[int] = field(default_factory=list)  # the discriminator's
    words: list[int] = field(default_factory=list)  # the generator's places to the words of the caption
    kind: str = "cross"  # how words enter: cross (GigaGAN's residual) or modulation (XMC-GAN's)


@dataclass
class Model:
    name: str = "stylegan2"  # a file of t2i/nets
    resolution: int = 64  # power of two, 16 to 1024
    width: float = 1.0  # multiplies every channel count ("model size" 0.5 / 0.8 / 1)
    channel_base: int = 16384  # channels at resolution r: min(channel_base / r, channel_max) · width
    channel_max: int = 512
    d_channel_base: int = 0  # the discriminator's own; 0 = as the generator's
    d_channel_max: int = 0
    latent_dim: int = 512
    style_dim: int = 512
    mapping_layers: int = 2
    g_architecture: str = "skip"  # skip, resnet or orig
    d_architecture: str = "resnet"  # resnet, skip or orig
    g_text: str = "lafite"  # how text reaches the generator: lafite (per-layer MLPs) or mapping (joined to z)
    d_text: str = "lafite"  # how text reaches the discriminator: lafite (f(x) + <d(x), t>), lafite_published (<d(x), t>
    # summed over the batch, as in the published code) or projection (cmap)
    stylegan3: str = "t"  # which StyleGAN3: t (equivariant to translation) or r (to rotation too; twice the channels)
    stylegan3_layers: int = 14  # before toRGB
    stylegan3_recompute: bool = False  # its layers keep only their inputs for the backward pass: memory for time
    noise: bool = True  # StyleGAN2's noise inputs; false suits pictures of flat colours, where noise can only hurt
    mbstd_group: int = 4  # pictures compared by minibatch stddev; must divide the batch of one process
    conv_clamp: float | None = None  # clamps activations at this value (256 for fp16; StyleGAN3 always has 256)
    attention: Attention = field(default_factory=Attention)


@dataclass
class Adam:
    lr: float = 0.0025
    beta1: float = 0.0
    beta2: float = 0.99
    eps: float = 1e-8


@dataclass
class Optim:
    g: Adam = field(default_factory=Adam)
    d: Adam = field(default_factory=Adam)


@dataclass
class Ada:
    mode: str = "off"  # off, fixed (p stays) or ada (p follows the discriminator's overfitting)
    p: float = 0.0  # start, or fixed value, in [0, 1]
    target: float = 0.6  # the mean sign of D(real) that ada holds
    speed_kimg: float = 500.0  # kimg that p would take from 0 to 1
    every: int = 4  # steps between two adjustments
    ops: str = "bgc"  # letters: b(lit) g(eometry) c(olour) f(ilter) n(oise) o (cutout)


@dataclass
class Train:
    kimg: float = 1000.0  # thousands of real pictures shown
    minutes: float = 0.0  # leave with a checkpoint after so long, wherever it is; 0 = no limit
    batch: int = 32  # global batch: over all processes and accumulation rounds
    accumulate: int = 1  # rounds of forward and backward before one optimiser step
    precision: str = "fp32"  # fp32, bf16 or fp16 (fp16 on CUDA only)
    channels_last: bool = True
    style_mixing: float = 0.9  # probability that a batch mixes two latents
    ema_kimg: float = 10.0  # half-life of the averaged generator
    # Blurs all that the discriminator sees by 2^-(x/σ)²; σ falls from d_blur pixels to 0 over d_blur_kimg. null: 10 for
    # StyleGAN3-R, whose training otherwise collapses early, else 0.
    d_blur: float | None = None
    d_blur_kimg: float = 200.0  # published: 200 · batch / 32
    ema_ramp: float | None = 0.05  # half-life at most this share of the pictures seen so far; null = off


@dataclass
class Log:
    every: int = 50  # steps between two lines of metrics
    snapshot_kimg: float = 10.0  # picture grid; 0 = off
    checkpoint_kimg: float = 50.0
    keep: int = 2  # checkpoints kept
    prompts: list[str] = field(default_factory=list)  # for the grid; empty = captions of the data
    grid: int = 6  # rows of prompts and columns of latents in the grid


@dataclass
class Eval:
    """Scores of the averaged generator while training (scripts/score.py computes the same of a finished one)."""

    every: float = 0.0  # kimg between evaluations, and one at the end; 0 = never
    reference: str = ""  # shards of real pictures of the model's resolution, not trained on
    metrics: list[str] = field(default_factory=list)  # files of t2i/metrics; empty = all that can be computed
    samples: int = 1000  # pictures, one a caption of the reference
    best: str = ""  # the score by which runs/<name>/best is kept; empty = the first one
    seed: int = 0  # of captions and latents: always the same ones
    # Weight files and names of the networks that judge, as score.py takes them, such as {clip: NAME}; {} = usual places
    networks: dict[str, str] = field(default_factory=dict)


@dataclass
class Config:
    name: str = "scenes"  # the run's folder below runs
    runs: str = "runs"
    seed: int = 0
    resume: str = "auto"  # auto: continue the newest checkpoint of this run; never: refuse a folder that has one
    preset: str = ""  # auto, stylegan2, paper256, paper512, paper1024 or cifar: StyleGAN2-ADA's settings
    data: Data = field(default_factory=Data)
    encoders: Encoders = field(default_factory=Encoders)
    text: Text = field(default_factory=Text)
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    ada: Ada = field(default_factory=Ada)
    train: Train = field(default_factory=Train)
    log: Log = field(default_factory=Log)
    eval: Eval = field(default_factory=Eval)
    # name: {weight, every, and the loss function's own keyword arguments}; the tables are in t2i/losses
    loss: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "adversarial": {"weight": 1.0},
            "r1": {"weight": 1.0, "every": 16, "gamma": 1.0},
            "path_length": {"weight": 2.0, "every": 4},
            "img_txt_d": {"weight": 1.0, "temperature": 0.1},
            "img_txt_clip": {"weight": 1.0, "temperature": 0.1},
        }
    )

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise UserError("; ".join(problems))


def _problems(c: Config) -> list[str]:
    """Everything that is wrong with the values, each as 'field=value: remedy'."""
    m, t = c.model, c.train
    bad: list[str] = []

    def check(ok: bool, name: str, value: Any, remedy: str) -> None:
        if not ok:
            bad.append(f"{name}={value}: {remedy}")

    def one_of(name: str, value: str, *known: str) -> None:
        check(value in known, name, value, closest(value, known))

    check(bool(c.name) and "/" not in c.name and c.name not in (".", ".."), "name", repr(c.name), "a plain folder name")
    r = m.resolution
    check(16 <= r <= 1024 and r & (r - 1) == 0, "model.resolution", r, "a power of two from 16 to 1024")
    for name in ("width", "channel_base", "channel_max", "latent_dim", "style_dim", "mapping_layers", "mbstd_group"):
        check(getattr(m, name) > 0, f"model.{name}", getattr(m, name), "must be above 0")
    one_of("model.g_architecture", m.g_architecture, "skip", "resnet", "orig")
    one_of("model.d_architecture", m.d_architecture, "skip", "resnet", "orig")
    one_of("model.stylegan3", m.stylegan3, "t", "r")
    check(m.stylegan3_layers >= 4, "model.stylegan3_layers", m.stylegan3_layers, "4 or more")
    one_of("model.attention.kind", m.attention.kind, "cross", "modulation")
    one_of("model.g_text", m.g_text, "lafite", "mapping")
    one_of("model.d_text", m.d_text, "lafite", "lafite_published", "projection")
    one_of("encoders.vgg_preprocessing", c.encoders.vgg_preprocessing, "torchvision", "caffe")
    check(c.encoders.vgg_size >= 0, "encoders.vgg_size", c.encoders.vgg_size, "a side in pixels, or 0")
    one_of("train.precision", t.precision, "fp32", "bf16", "fp16")
    for name in ("kimg", "batch", "accumulate", "ema_kimg"):
        check(getattr(t, name) > 0, f"train.{name}", getattr(t, name), "must be above 0")
    check(t.d_blur is None or t.d_blur >= 0, "train.d_blur", t.d_blur, "pixels, 0 or more; null: as published")
    check(t.d_blur_kimg > 0, "train.d_blur_kimg", t.d_blur_kimg, "must be above 0; train.d_blur=0 turns it off")
    check(t.minutes >= 0, "train.minutes", t.minutes, "0 (no limit) or more")
    check(0 <= t.style_mixing <= 1, "train.style_mixing", t.style_mixing, "a probability, 0 to 1")
    check(
        t.accumulate > 0 and t.batch % t.accumulate == 0,
        "train.batch", t.batch, f"must be a multiple of train.accumulate={t.accumulate}",
    )  # fmt: skip
    one_of("ada.mode", c.ada.mode, "off", "fixed", "ada")
    check(0 <= c.ada.p <= 1, "ada.p", c.ada.p, "a probability, 0 to 1")
    check(set(c.ada.ops) <= set("bgcfno"), "ada.ops", c.ada.ops, "letters of bgcfno")
    check(0 < c.encoders.cut_size <= 1, "encoders.cut_size", c.encoders.cut_size, "a share above 0, at most 1")
    one_of("text.source", c.text.source, "captions", "image", "image_nn")
    check(0 <= c.text.noise < 1, "text.noise", c.text.noise, "a share from 0 to below 1")
    check(
        c.text.source == "captions" or c.encoders.text == c.encoders.clip,
        "text.source", c.text.source, "pictures stand for captions only in the space of one CLIP: set encoders.text="
        f"{c.encoders.text} and encoders.clip={c.encoders.clip} to the same",
    )  # fmt: skip
    for name in ("word_dropout", "paraphrase"):
        value = getattr(c.data, name)
        check(0 <= value < 1 or (name == "paraphrase" and value == 1), f"data.{name}", value, "a probability, 0 to 1")
    check(c.data.workers >= 0, "data.workers", c.data.workers, "0 or more")
    check(0 <= c.data.max_broken < 1, "data.max_broken", c.data.max_broken, "a share from 0 to below 1")
    check(c.log.every > 0, "log.every", c.log.every, "1 or more steps")
    check(c.log.keep > 0, "log.keep", c.log.keep, "keep at least 1 checkpoint")
    check(c.log.checkpoint_kimg > 0, "log.checkpoint_kimg", c.log.checkpoint_kimg, "must be above 0")
    check(c.eval.every >= 0, "eval.every", c.eval.every, "0 (never) or more kimg")
    check(c.eval.every <= 0 or bool(c.eval.reference), "eval.reference", "''", "eval.every needs shards to judge by")
    check(c.eval.samples >= 2, "eval.samples", c.eval.samples, "2 or more pictures")
    for which in ("g", "d"):
        lr = getattr(c.optim, which).lr
        check(lr > 0, f"optim.{which}.lr", lr, "must be above 0")
    for name, options in c.loss.items():
        for key in ("weight", "every"):
            value = options.get(key, 1)
            ok = isinstance(value, int | float) and not isinstance(value, bool) and value >= (key == "every")
            check(ok, f"loss.{name}.{key}", value, "a number, 0 or more" if key == "weight" else "1 or more steps")
    return bad


PRESETS = ("auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar")


def preset(name: str, resolution: int, devices: int = 1) -> dict[str, Any]:
    """StyleGAN2-ADA's published settings (2006.06676, appendix F, and its code) as nested config values.

    `auto` depends on the resolution and the number of devices; the others are for any resolution.
    """
    if name not in PRESETS:
        raise UserError(f"preset={name}: {closest(name, PRESETS)}")
    if name == "auto":
        batch = max(min(devices * min(4096 // resolution, 32), 64), devices)
        s: dict[str, Any] = {
            "batch": batch,
            "mbstd": max(min(batch // devices, 4), 1),
            "base": 32768 if resolution >= 512 else 16384,
            "lr": 0.002 if resolution >= 1024 else 0.0025,
            "gamma": 0.0002 * resolution**2 / batch,
            "ema": batch * 10 / 32,
            "ramp": 0.05,
            "layers": 2,
        }
    else:
        keys = ("batch", "mbstd", "base", "lr", "gamma", "ema", "ramp", "layers")
        table = {
            "stylegan2": (32, 4, 32768, 0.002, 10.0, 10.0, None, 8),
            "paper256": (64, 8, 16384, 0.0025, 1.0, 20.0, None, 8),
            "paper512": (64, 8, 32768, 0.0025, 0.5, 20.0, None, 8),
            "paper1024": (32, 4, 32768, 0.002, 2.0, 10.0, None, 8),
            "cifar": (64, 32, 32768, 0.0025, 0.01, 500.0, 0.05, 2),
        }
        s = dict(zip(keys, table[name], strict=True))
    values: dict[str, Any] = {
        "model": {
            "channel_base": s["base"], "channel_max": 512, "latent_dim": 512, "style_dim": 512,
            "mapping_layers": s["layers"], "mbstd_group": s["mbstd"],
        },
        "optim": {"g": {"lr": s["lr"]}, "d": {"lr": s["lr"]}},
        "train": {"batch": s["batch"], "ema_kimg": s["ema"], "ema_ramp": s["ramp"]},
        "loss": {"r1": {"gamma": s["gamma"]}},
    }  # fmt: skip
    if name == "cifar":
        values["model"]["d_architecture"] = "orig"
        values["train"]["style_mixing"] = 0.0
        values["loss"]["path_length"] = {"weight": 0.0}
    return values


def load(path: str | Path | None = None, overrides: Sequence[str] = (), devices: int = 1) -> Config:
    """YAML file (or none) + dotted overrides ('train.batch=8') → a checked Config.

    Order, later wins: defaults, preset, the YAML that `base: other.yaml` names (beside this one, and so on), YAML,
    overrides. Raises UserError with one line naming what is wrong.
    """
    for item in overrides:
        if "=" not in item or item.startswith("-"):
            raise UserError(f"argument {item!r}: write key=value, for example train.batch=8")
    try:
        given: Any = OmegaConf.merge(_read(Path(path)) if path else {}, OmegaConf.from_dotlist(list(overrides)))
        base = OmegaConf.structured(Config)
        name = str(given.get("preset") or "")
        if name:
            resolution = given.get("model", {}).get("resolution") or Model.resolution
            base = OmegaConf.merge(base, preset(name, int(resolution), devices))
        config = OmegaConf.to_object(OmegaConf.merge(base, given))
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"config {path}: {' '.join(str(error).split())}") from None
    assert isinstance(config, Config)
    return config


def _read(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """A YAML merged onto the one it names as its base."""
    if not path.is_file():
        near = [str(p) for p in path.parent.glob("*.yaml")]
        named = f", the base of {above[-1]}" if above else ""
        raise UserError(f"config {path}{named}: no such file; {closest(str(path), near)}")
    given: Any = OmegaConf.load(path)
    base = given.pop("base", None) if isinstance(given, DictConfig) else None
    if base is None:
        return given
    if path.resolve() in above:
        raise UserError(f"config {path}: is its own base, by way of {' and '.join(p.name for p in above)}")
    return OmegaConf.merge(_read(path.parent / str(base), (*above, path.resolve())), given)


def _explain(error: OmegaConfBaseException) -> str:
    """One line for a wrong key or type."""
    key = str(getattr(error, "full_key", "") or getattr(error, "key", "") or "")
    kind = getattr(error, "object_type", None)
    if "Key" in type(error).__name__ and dataclasses.is_dataclass(kind):
        names = [f.name for f in dataclasses.fields(kind)]
        return f"unknown key {key!r}; {closest(key.split('.')[-1], names)}"
    return f"{key}: {str(error).splitlines()[0]}" if key else str(error).splitlines()[0]


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that load() reads back to an equal Config."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_dict(values: dict[str, Any]) -> Config:
    """A Config from the plain dict that `dataclasses.asdict` gave, as stored in a checkpoint."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    except OmegaConfBaseException as error:
        raise UserError(f"stored configuration: {_explain(error)}") from None
    assert isinstance(config, Config)
    return config
