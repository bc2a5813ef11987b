"""What pictures are compared with: shards, a folder of any pictures, or the mean and covariance that a file keeps.

Such a file is an .npz with `mu` [C] and `sigma` [C, C], as pytorch-fid, clean-fid, the evaluator of ADM, EDM and the
TTUR code write and read them. One of ours also says of which network, of how many and of which pictures it is; one of
another tool does not, and the protocol says so. It holds arrays alone: nothing in it can run.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i import files
from t2i.errors import UserError, one_line
from t2i.metrics.captions import Caption
from t2i.metrics.frechet import UNSTATED, Moments
from t2i.metrics.sources import PICTURES, Folder, Reference
from t2i.options import flag
from t2i.rng import derive_seed

MAIN = "inception"  # the features whose statistics the keys `mu` and `sigma` are, where a file has several
REMEDY = "give arrays mu [C] and sigma [C, C], as pytorch-fid, clean-fid and --save-reference write them"


class PictureFolder:
    """A folder of real pictures, in one seeded order."""

    scenes = False

    def __init__(self, folder: str | Path, seed: int = 0, resize: int | None = None, said: str = "--reference"):
        """UserError where its pictures are not squares of one size and `resize` does not make them so."""
        self.said = f"{said} {folder}"
        self.folder = Folder(folder, resize=resize, said=said)
        self.count, self.resolution = len(self.folder.files), self.folder.resolution
        self.captioned = self.folder.captioned
        self.order = np.random.default_rng(derive_seed(seed, 0x0D)).permutation(self.count)
        self._digest: str | None = None

    def pick(self, numbers: Sequence[int]) -> Tensor:
        """[N, 3, H, W] in [-1, 1]."""
        return self.folder.pick([int(self.order[n]) for n in numbers])

    def captions(self, count: int) -> list[Caption]:
        if not self.captioned:
            raise UserError(f"{self.said}: its pictures have no captions; give --captions FILE")
        return [self.folder.captions[int(n)] for n in self.order[:count]]

    def digest(self) -> str:
        """Of all files' bytes, whatever their names but for their order."""
        if self._digest is None:
            whole = hashlib.sha256()
            for path in self.folder.files:
                whole.update(bytes.fromhex(files.sha256(path)))
            self._digest = whole.hexdigest()[:16]
        return self._digest

    def describe(self, count: int) -> dict[str, Any]:
        """What the fingerprint says of it."""
        resize = self.folder.resize
        how = f"to {resize}, the middle square, Pillow Lanczos" if resize else "none"
        return {
            "resize": f"{how}, {self.folder.encoding}", "reference": self.digest(),
            "reference_split": f"folder {self.folder.folder.name}", "reference_count": count,
        }  # fmt: skip


class Statistics:
    """Mean and covariance of features of real pictures, and no pictures."""

    scenes = captioned = False

    def __init__(self, path: str | Path, said: str = "--reference"):
        """UserError, in one line, for what is no such file."""
        self.path, self.said = Path(path), f"{said} {path}"
        self.moments: dict[str, Moments] = {}  # of each network's features; of an unstated network under ""
        self.fingerprints: dict[str, str] = {}
        try:
            with np.load(self.path, allow_pickle=False) as read:
                about = json.loads(str(read["about"])) if "about" in read.files else {}
                count = int(read["count"]) if "count" in read.files else UNSTATED
                self.fingerprints = about.get("networks", {})
                for name in self.fingerprints or [""]:
                    end = "" if name in ("", about.get("main")) else f"_{name}"
                    self.moments[name] = self._checked(read[f"mu{end}"], read[f"sigma{end}"], count)
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{self.said}: {one_line(error)}; {REMEDY}") from None
        except Exception as error:  # a damaged file leads the readers to whatever
            raise UserError(f"{self.said}: cannot be read as statistics ({one_line(error)}); {REMEDY}") from None
        self.count, self.resolution = count, about.get("resolution")
        self.protocol: dict[str, Any] = about.get("protocol") or {
            "resize": "unknown", "reference": files.sha256(self.path)[:16], "reference_count": "unknown",
            "reference_split": f"{self.path.name}, statistics that do not say of which network and pictures they are",
        }  # fmt: skip

    def _checked(self, mean: np.ndarray, covariance: np.ndarray, count: int) -> Moments:
        mean, covariance = (np.asarray(x, dtype=np.float64) for x in (mean, covariance))
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise UserError(f"{self.said}: mu {mean.shape} and sigma {covariance.shape}; {REMEDY}")
        if not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6):
            raise UserError(f"{self.said}: sigma is not symmetric, or not finite; {REMEDY}")
        if not np.isfinite(mean).all():
            raise UserError(f"{self.said}: mu is not finite; {REMEDY}")
        covariance = (covariance + covariance.T) / 2
        return Moments(count, torch.from_numpy(mean), torch.from_numpy(covariance) * (count - 1))

    def lacks(self, features: Sequence[str], moments: bool, by_name: bool) -> str | None:
        """Why a metric of these features cannot be computed from the file; None where it can."""
        if not moments:
            return f"needs real pictures, and {self.path.name} has their mean and covariance alone"
        if self.fingerprints:
            lacking = next((f for f in features if f not in self.fingerprints), None)
            return f"{self.path.name} has no statistics of {lacking}'s features" if lacking else None
        if not by_name and MAIN not in features:
            return f"{self.path.name} does not say of which network it is: ask for the metric by name"
        return None

    def of(self, features: str, fingerprint: str) -> Moments:
        """UserError where they were seen through other weights than the judge's."""
        if not self.fingerprints:
            return self.moments[""]
        if (theirs := self.fingerprints[features]) != fingerprint:
            raise UserError(
                f"{self.said}: its statistics of {features} are of weights {theirs}, and {fingerprint} judge; make it "
                "again with --save-reference"
            )
        return self.moments[features]

    def pick(self, numbers: Sequence[int]) -> Tensor:
        raise UserError(f"{self.said}: has no pictures")

    def captions(self, count: int) -> list[Caption]:
        raise UserError(f"{self.said}: statistics have no captions; give --captions FILE")

    def describe(self, count: int) -> dict[str, Any]:
        """What the fingerprint says of it: what it would say of the pictures, where the file knows."""
        return self.protocol


def save(
    path: Path,
    moments: Mapping[str, Moments],
    fingerprints: Mapping[str, str],
    resolution: int,
    protocol: Mapping[str, Any],
) -> None:
    """Writes statistics that `Statistics` and other tools read: `mu` and `sigma` of Inception's features, or of the
    first network's; `mu_clip` and so on of others; `count`, and `about`, a JSON text. UserError where it cannot."""
    main = MAIN if MAIN in moments else next(iter(moments))
    about = {"main": main, "networks": dict(fingerprints), "resolution": resolution, "protocol": dict(protocol)}
    arrays: dict[str, Any] = {"count": moments[main].count, "about": json.dumps(about)}
    for name, one in moments.items():
        end = "" if name == main else f"_{name}"
        arrays |= {f"mu{end}": one.mean.numpy(), f"sigma{end}": one.cov.numpy()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"--save-reference {path}: {error.strerror}; choose another file") from None


AnyReference = Reference | PictureFolder | Statistics


def find(what: str, seed: int = 0, resize: int | None = None, spell: Callable[[str], str] = flag) -> AnyReference:
    """An .npz of statistics, a folder that holds pictures and no shards, or else shards."""
    said, path = spell("reference"), Path(what)
    if path.suffix == ".npz":
        return Statistics(path, said)
    if path.is_dir() and not any(path.glob("*.tar")) and any(p.suffix.lower() in PICTURES for p in path.rglob("*")):
        return PictureFolder(path, seed, resize, said)
    return Reference(what, seed, spell=spell)
