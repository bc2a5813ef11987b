"""What score.py is asked for. Each field is an option, its comment the option's help; nothing heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from t2i import metrics
from t2i.errors import UserError
from t2i.metrics import networks
from t2i.options import flag

MOST = 30000  # pictures, where nobody says how many: the protocol of COCO


@dataclass(frozen=True)
class Request:
    """What is to be judged, against what, by what. UserError for what is wrong without a look at any file."""

    checkpoint: str | None = None  # run, checkpoint or model folder (the newest run, or else the shipped model)
    pictures: str | None = None  # a folder of pictures to be judged instead, in natural order of their names
    # the side that they, and those of a reference folder, are brought to: the middle square, by Lanczos' filter (as
    # they are)
    resize: int | None = None
    # a file: one a line, .jsonl, .csv, JSON {picture: caption} or a list saved by this command (those of the reference)
    captions: str | None = None
    # coco30k: one caption each of 30,000 pictures of COCO's annotations, --captions captions_val2014.json, by a rule
    preset: str | None = None
    save_captions: Path | None = None  # a .json for the captions of --preset and their ids, and no more is done
    # shards or a folder of real pictures of the same resolution, or an .npz of their mean and covariance
    reference: str | None = None
    save_reference: Path | None = None  # an .npz for mean and covariance of --reference, and no more is done
    reference_count: int | None = None  # how many of them (all)
    metrics: str | None = None  # their names with commas between (all that can be computed)
    samples: int | None = None  # pictures, one a caption (30000, or as many as there are captions)
    seed: int = 0  # of captions and latents
    truncation: float = 1.0  # below 1: more typical, less varied
    truncations: str | None = None  # several with commas between: scores of each, a table and a curve
    noise: str = "const"  # the generator's noise inputs: const or random
    pairs: int = 500  # pairs of pictures of one caption, for diversity
    # parts of the pictures that are left out in turn, for intervals of whole sets' scores such as FID; 0: no intervals
    jackknife: int = 20
    device: str | None = None  # cpu, cuda, cuda:1, ... (cuda where there is one)
    json: Path | None = None  # a file for scores and protocol (out/score-<what was judged>.json)
    agreement: str | None = None  # shards: how well --clip finds the right captions of their pictures, and no more
    # shards of real pictures: what every score makes of these, blurred, shuffled, flat, and of noise, and no more
    floors: str | None = None
    # a PNG: the generated pictures that come nearest to training pictures, beside those, and how near; and no more
    nearest: Path | None = None
    training: str | None = None  # shards that they may be copied from (those the model was trained on)
    networks: Mapping[str, str | None] = field(default_factory=dict)  # settings of networks that judge

    def __post_init__(self) -> None:
        for name, least in (("samples", 2), ("resize", 8), ("reference_count", 2), ("pairs", 1), ("jackknife", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{flag(name)} {value}: {least} or more")
        if self.noise not in ("const", "random"):
            raise UserError(f"--noise {self.noise}: const or random")
        metrics.check(self.names or [])
        if self.truncations and (self.pictures or self.agreement):
            raise UserError(f"--truncations {self.truncations}: only of a model, which draws the pictures")
        _ = self.ladder
        networks.check(self.networks)
        if self.pictures and self.checkpoint:
            raise UserError(f"--pictures {self.pictures}: leave out --checkpoint, or the pictures")
        if self.resize and not (self.pictures or (self.reference and Path(self.reference).is_dir())):
            raise UserError(f"--resize {self.resize}: only of --pictures; a model's have the size they have")
        if self.preset not in (None, "coco30k"):
            raise UserError(f"--preset {self.preset}: known: coco30k")
        if self.preset and (not self.captions or self.pictures or self.reference_count):
            said = "it is of --captions ANNOTATIONS, for a model to draw, against all of the reference"
            raise UserError(f"--preset {self.preset}: {said}; for --pictures, give what --save-captions wrote")
        if self.save_captions and not self.preset:
            raise UserError(f"--save-captions {self.save_captions}: of what? give --preset coco30k")
        if self.save_reference and not self.reference:
            raise UserError(f"--save-reference {self.save_reference}: of what? give --reference")
        if self.save_reference and self.save_reference.suffix != ".npz":
            raise UserError(f"--save-reference {self.save_reference}: name it .npz")
        if self.floors and (self.checkpoint or self.pictures or not self.reference):
            raise UserError(f"--floors {self.floors}: with --reference SHARDS, and without --checkpoint or --pictures")
        if self.nearest and not self.reference:
            raise UserError(f"--nearest {self.nearest}: needs pictures that nobody trained on, --reference SHARDS")
        if self.nearest and self.pictures and not self.training:
            raise UserError(f"--nearest {self.nearest}: which pictures was it trained on? --training SHARDS")
        if self.training and not self.nearest:
            raise UserError(f"--training {self.training}: only with --nearest FILE.png")
        if not (self.captions or self.reference or self.pictures or self.agreement):
            raise UserError("no captions: give --reference SHARDS or --captions FILE")

    @property
    def ladder(self) -> list[float]:
        """The truncations, of several."""
        said = f"--truncations {self.truncations}"
        try:
            found = [float(part) for part in listed(self.truncations or "")]
        except ValueError:
            raise UserError(f"{said}: numbers with commas between, such as 1,0.9,0.7") from None
        if len(found) == 1 or len(set(found)) != len(found):
            raise UserError(f"{said}: two or more that differ; one is --truncation")
        return found

    @property
    def names(self) -> list[str] | None:
        """Of the metrics asked for; None: all that can be computed."""
        return listed(self.metrics) if self.metrics else None


def listed(text: str) -> list[str]:
    """ "fid, kid" → ["fid", "kid"]."""
    return [n.strip() for n in text.split(",") if n.strip()]
