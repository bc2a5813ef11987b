"""What a run is made of. Dataclasses give defaults, types and documentation; a YAML names a run; dotted
overrides come last. What belongs to one network stands beside it, as the Options of its file in t2i/nets."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from t2i import growth, nets, schedule
from t2i.errors import UserError, closest, not_one_of, wrong
from t2i.schedule import Schedule

KINDS = ("generator", "discriminator")


@dataclass
class Data:
    shards: str = "shards/scenes-train-64"  # folder, tar, glob with braces, http(s)://… or pipe:…
    mirror: bool = False  # flip half of the pictures, but never one whose caption says left or right
    workers: int = 1  # loader processes per training process; 0 decodes in the training process
    word_dropout: float = 0.0  # leave out each word of a caption with this probability
    paraphrase: float = 0.0  # with this probability mix the caption with another of the picture's
    max_broken: float = 0.01  # stop when more than this share of the samples read is broken
    cache: str = "shards/.cache"  # where remote shards are kept
    cache_gb: float = 0.0  # the most of them; what was read longest ago goes (32 shards are in use at a time); 0 = all


@dataclass
class Encoders:
    # "scenes-clip" ships with the package, "all-minilm-l6-v2" with t2i[pretrained]; "folder/of/train_clip";
    # "open_clip:ARCH/TAG_OR_FILE"; "hf:NAME_OR_FOLDER"
    text: str = "scenes-clip"
    clip: str = "scenes-clip"  # image-text guidance; loaded only when a loss with weight asks for it
    vgg: str = "scenes-vgg"  # for picture-picture losses: shipped, vgg16, vgg19 or a weight file
    vgg_preprocessing: str = "torchvision"  # what its weights were trained on: torchvision, or caffe (BGR, 0 to 255)
    vgg_size: int = 128  # larger pictures are reduced to this side before VGG; 0 = never
    cut_size: float = 0.9  # smallest side of a random crop before CLIP, as a share of the picture; 1 = no crops
    stored: bool = True  # use the features that make_shards --clip stored, where the shards hold some
    # For any further file of t2i/encoders, by its name: what its `load` reads, and a loss of its asks for.
    other: dict[str, Any] = field(default_factory=dict)


@dataclass
class Text:
    # What stands for a picture's caption in training: captions (the caption itself), or, for training without captions,
    # the picture's own CLIP feature: image (with noise 0.75 LAFITE-G) or image_nn (a learnt perturbation: LAFITE-NN)
    source: str = "captions"
    noise: Schedule = 0.0  # share of a random unit vector in the sentence, which stays of unit length; LAFITE: 0.1


@dataclass
class Model:
    """What generator and discriminator have in common."""

    resolution: int = 64  # of the finished pictures; a power of two, 16 to 1024
    width: float = 1.0  # multiplies every channel count ("model size" 0.5 / 0.8 / 1)


@dataclass
class Adam:
    lr: Schedule = 0.0025
    beta1: Schedule = 0.0
    beta2: Schedule = 0.99
    eps: float = 1e-8


@dataclass
class Optim:
    g: Adam = field(default_factory=Adam)
    d: Adam = field(default_factory=Adam)


@dataclass
class Ada:
    mode: str = "off"  # off, fixed (p stays) or ada (p follows the discriminator's overfitting)
    p: Schedule = 0.0  # where ada starts, or what fixed holds, in [0, 1]
    target: float = 0.6  # the mean sign of D(real) that ada holds
    speed_kimg: float = 500.0  # kimg that p would take from 0 to 1
    every: int = 4  # steps between two adjustments
    ops: str = "bgc"  # letters: b(lit) g(eometry) c(olour) f(ilter) n(oise) o (cutout)

    def __post_init__(self) -> None:
        self.mode = "off" if self.mode == "False" else self.mode  # which is how YAML reads it


@dataclass
class DiffAugment:
    """Strengths from 0, off, to 1, as published: beside ADA, and of every picture that D sees."""

    color: Schedule = 0.0
    translation: Schedule = 0.0
    cutout: Schedule = 0.0


@dataclass
class Train:
    kimg: float = 1000.0  # thousands of real pictures shown
    minutes: float = 0.0  # leave with a checkpoint after so long, wherever it is; 0 = no limit
    batch: int = 32  # global batch: over all processes and accumulation rounds
    accumulate: int = 1  # rounds of forward and backward before one optimiser step
    d_steps: int = 1  # updates of the discriminator, each with pictures of its own, before one of the generator
    shared_fakes: bool = False  # D and G are updated by the same fakes: a pass less of G, and of D's frozen trunk
    # auto (bf16 where the GPU or the CPU computes it, else fp32), fp32, bf16 or fp16 (on CUDA only)
    precision: str = "auto"
    channels_last: bool = True
    ema_kimg: Schedule = 10.0  # half-life of the averaged generator; 0 = no averaging
    ema_ramp: float | None = 0.05  # half-life at most this share of the pictures seen so far; null = off
    # Blurs all that the discriminator sees by 2^-(x/σ)², σ in pixels; [[0, 4], [80, 0]] falls from 4 to 0 in 80 kimg.
    d_blur: Schedule = 0.0


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
    data: Data = field(default_factory=Data)
    encoders: Encoders = field(default_factory=Encoders)
    text: Text = field(default_factory=Text)
    model: Model = field(default_factory=Model)
    # {name: a file of t2i/nets/generators, and what the Options there have}; likewise t2i/nets/discriminators
    generator: Any = field(default_factory=dict)
    discriminator: Any = field(default_factory=dict)
    optim: Optim = field(default_factory=Optim)
    ada: Ada = field(default_factory=Ada)
    diffaugment: DiffAugment = field(default_factory=DiffAugment)
    train: Train = field(default_factory=Train)
    log: Log = field(default_factory=Log)
    eval: Eval = field(default_factory=Eval)
    stages: list[growth.Entry] = field(default_factory=list)  # in the order of their kimg; before, all as above
    # name: {weight, every, and the loss function's own keyword arguments}; the losses are in t2i/losses
    loss: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "adversarial": {"weight": 1.0},
            "r1": {"weight": 1.0, "every": 16, "gamma": 1.0},
            "img_txt_d": {"weight": 1.0, "temperature": 0.1},
            "img_txt_clip": {"weight": 1.0, "temperature": 0.1},
        }
    )

    def __post_init__(self) -> None:
        """UserError with all that is wrong: in the networks' own settings, which takes importing them, last."""
        _refuse(_problems(self))
        for kind in KINDS:
            setattr(self, kind, _network(kind, getattr(self, kind)))
        asked = {kind: getattr(self, kind).problems(self.model.resolution) for kind in KINDS}
        _refuse(f"{kind}.{problem}" for kind, problems in asked.items() for problem in problems)
        _refuse(_stages(self))


def _refuse(problems: Iterable[str]) -> None:
    if found := list(problems):
        raise UserError("; ".join(found))


def _network(kind: str, given: Any) -> Any:
    """The Options of a network, from the mapping that a YAML has for them."""
    if dataclasses.is_dataclass(given):
        return given
    if not isinstance(given, dict):
        raise UserError(f"{kind}={given}: a mapping with a name, as {kind}.name=stylegan2")
    module = nets.find(f"{kind}s", str(given.get("name", "stylegan2")))
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(module.Options), given))
    except OmegaConfBaseException as error:
        raise UserError(_explain(error, f"{kind}.")) from None


def _stages(c: Config) -> list[str]:
    """What is wrong with the stages."""
    grows = {f"{kind}.name={getattr(c, kind).name}": getattr(c, kind).GROWS for kind in KINDS}
    if not (bad := growth.problems(c.stages, c.model.resolution, grows)):
        for n in range(len(c.stages)):
            try:
                staged(c, n)
            except UserError as error:
                bad.append(f"stages[{n}].set: {error}")
    return bad


def staged(c: Config, n: int) -> Config:
    """The whole configuration as it is from stage n on: what earlier stages set holds until another sets it."""
    values = dataclasses.asdict(c) | {"stages": []}
    for entry in c.stages[: n + 1]:
        for key, value in entry.set.items():
            *path, last = key.split(".")
            place: Any = values
            for name in path:
                place = place.setdefault(name, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise UserError(f"{key}: no such setting; {'.'.join(path)} is a value")
            place[last] = value
    return _made_of(values)


ABOVE_0 = (
    "model.width", "train.kimg", "train.batch", "train.accumulate", "train.d_steps", "optim.g.eps", "optim.d.eps",
    "ada.speed_kimg", "ada.every", "log.every", "log.keep", "log.grid", "log.checkpoint_kimg",
)  # fmt: skip
FROM_0 = {
    "data.workers": "0 or more", "data.cache_gb": "GB, or 0 for no limit", "train.minutes": "0 (no limit) or more",
    "encoders.vgg_size": "a side in pixels, or 0", "log.snapshot_kimg": "0 (never) or more",
    "eval.every": "0 (never) or more kimg",
}  # fmt: skip


def _problems(c: Config) -> list[str]:
    """Everything that is wrong with the values, each as 'field=value: remedy'."""
    t = c.train
    bad: list[str] = []

    check = lambda ok, name, value, remedy: bad.extend(wrong(ok, name, value, remedy))
    one_of = lambda name, value, *known: bad.extend(not_one_of(name, value, *known))

    check(bool(c.name) and "/" not in c.name and c.name not in (".", ".."), "name", repr(c.name), "a plain folder name")
    r = c.model.resolution
    check(16 <= r <= 1024 and r & (r - 1) == 0, "model.resolution", r, "a power of two from 16 to 1024")
    for name in ABOVE_0:
        value = attrgetter(name)(c)
        check(value > 0, name, value, "must be above 0")
    for name, remedy in FROM_0.items():
        value = attrgetter(name)(c)
        check(value >= 0, name, value, remedy)
    check(c.model.width < float("inf"), "model.width", c.model.width, "a finite factor")
    check(abs(c.seed) < 2**63, "seed", c.seed, "a whole number of at most 63 bits")
    one_of("encoders.vgg_preprocessing", c.encoders.vgg_preprocessing, "torchvision", "caffe")
    one_of("train.precision", t.precision, "auto", "fp32", "bf16", "fp16")

    def changing(name: str, value: Any, ok: Callable[[float], bool], remedy: str) -> None:
        problem = schedule.problem(value)
        check(not problem and all(map(ok, schedule.values(value))), name, value, problem or remedy)

    changing("train.ema_kimg", t.ema_kimg, lambda x: x >= 0, "0 or more")
    changing("train.d_blur", t.d_blur, lambda x: 0 <= x <= r, f"pixels, 0 to model.resolution={r}")
    check(t.ema_ramp is None or t.ema_ramp >= 0, "train.ema_ramp", t.ema_ramp, "a share, 0 or more, or null")
    changing("ada.p", c.ada.p, lambda x: 0 <= x <= 1, "a probability, 0 to 1")
    check(
        c.ada.mode == "fixed" or not isinstance(c.ada.p, list), "ada.p", c.ada.p, "a schedule only with ada.mode=fixed"
    )
    for name, value in vars(c.diffaugment).items():
        changing(f"diffaugment.{name}", value, lambda x: 0 <= x <= 1, "a strength, 0 to 1")
    changing("text.noise", c.text.noise, lambda x: 0 <= x < 1, "a share from 0 to below 1")
    for which in ("g", "d"):
        adam = getattr(c.optim, which)
        changing(f"optim.{which}.lr", adam.lr, lambda x: x > 0, "must be above 0")
        for name in ("beta1", "beta2"):
            changing(f"optim.{which}.{name}", getattr(adam, name), lambda x: 0 <= x < 1, "from 0 to below 1")
    check(
        t.accumulate > 0 and t.batch % t.accumulate == 0,
        "train.batch", t.batch, f"must be a multiple of train.accumulate={t.accumulate}",
    )  # fmt: skip
    one_of("ada.mode", c.ada.mode, "off", "fixed", "ada")
    check(set(c.ada.ops) <= set("bgcfno"), "ada.ops", c.ada.ops, "letters of bgcfno")
    check(-1 <= c.ada.target <= 1, "ada.target", c.ada.target, "a mean sign, -1 to 1")
    check(0 < c.encoders.cut_size <= 1, "encoders.cut_size", c.encoders.cut_size, "a share above 0, at most 1")
    one_of("text.source", c.text.source, "captions", "image", "image_nn")
    check(
        c.text.source == "captions" or c.encoders.text == c.encoders.clip,
        "text.source", c.text.source, "pictures stand for captions only in the space of one CLIP: set encoders.text="
        f"{c.encoders.text} and encoders.clip={c.encoders.clip} to the same",
    )  # fmt: skip
    for name in ("word_dropout", "paraphrase"):
        value = getattr(c.data, name)
        check(0 <= value < 1 or (name == "paraphrase" and value == 1), f"data.{name}", value, "a probability, 0 to 1")
    check(0 <= c.data.max_broken < 1, "data.max_broken", c.data.max_broken, "a share from 0 to below 1")
    check(c.eval.every <= 0 or bool(c.eval.reference), "eval.reference", "''", "eval.every needs shards to judge by")
    check(c.eval.samples >= 2, "eval.samples", c.eval.samples, "2 or more pictures")
    for name, options in c.loss.items():
        if not isinstance(options, dict):
            check(False, f"loss.{name}", options, "a mapping, as loss.{name}.weight=1")
            continue
        changing(f"loss.{name}.weight", options.get("weight", 1), lambda x: x >= 0, "0 or more")
        every = options.get("every", 1)
        ok = isinstance(every, int) and not isinstance(every, bool) and every >= 1
        check(ok, f"loss.{name}.every", every, "1 or more steps")
    return bad


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """YAML file (or none) + dotted overrides ('train.batch=8') → a checked Config.

    Order, later wins: defaults, the YAMLs that `base: other.yaml` names (one or a list, beside this one, and so on),
    YAML, overrides. Raises UserError with one line naming what is wrong.
    """
    for item in overrides:
        if "=" not in item or not item[0].isalpha():
            raise UserError(f"argument {item!r}: write key=value, for example train.batch=8")
    source = f"config {path}"
    try:
        file: Any = _read(Path(path)) if path else OmegaConf.create()
        said: Any = OmegaConf.create()
        for item in overrides:
            source = f"argument {item!r}"
            said = OmegaConf.merge(said, OmegaConf.from_dotlist([item]))
        given = _over(file, said)
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    return _made_of(given)


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
    bases = [base] if isinstance(base, str) else list(base)
    below = (_read(path.parent / str(name), (*above, path.resolve())) for name in bases)
    return functools.reduce(_over, [*below, given])


def _over(below: Any, above: Any) -> Any:
    """Settings merged onto others; of a network's, where another one is named above, those that it has too."""
    for kind in KINDS:
        if (name := OmegaConf.select(above, f"{kind}.name")) and OmegaConf.is_dict(below.get(kind)):
            below[kind] = nets.shared(f"{kind}s", str(name), below[kind])
    return OmegaConf.merge(below, above)


def _explain(error: OmegaConfBaseException, prefix: str = "") -> str:
    """One line for a wrong key or type."""
    key = prefix + str(getattr(error, "full_key", "") or getattr(error, "key", "") or "")
    kind = getattr(error, "object_type", None)
    if "Key" in type(error).__name__ and dataclasses.is_dataclass(kind):
        names = [f.name for f in dataclasses.fields(kind)]
        return f"unknown key {key!r}; {closest(key.split('.')[-1], names)}"
    return f"{key}: {str(error).splitlines()[0]}" if key else str(error).splitlines()[0]


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that load() reads back to an equal Config."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any]) -> Config:
    """A Config from the plain dict that `dataclasses.asdict` gave, as stored in a checkpoint.

    Whoever wrote it is not to read the environment of whoever loads it: ${oc.env:...} is for one's own YAML.
    """
    if "${" in repr(values):
        raise UserError("stored configuration: holds ${...}, which one that is stored has no use for")
    try:
        return _made_of(values)
    except UserError as error:
        raise UserError(f"stored configuration: {error}") from None


def _made_of(values: Any) -> Config:
    """A checked Config of nested mappings, defaults where they say nothing."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from None
    except TypeError as error:  # a list where a mapping belongs, or the other way round
        raise UserError(f"{' '.join(str(error).split())}: a list stands where key: value belongs, or so") from None
    assert isinstance(config, Config)
    return config
