"""The Inception network of FID, KID and IS: torch-fidelity's, which resizes as TensorFlow 1 did, on weights of a file.

Both published files hold the same numbers under the same names: torch-fidelity's and pytorch-fid's.
"""

import hashlib
import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.errors import UserError
from t2i.pictures import to_uint8

FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of either
HOMES = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
)


def find(file: str | Path | None = None) -> Path | None:
    """The file given, or either published one in torch's cache; None where there is none."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return next((p for p in ([Path(file)] if file else [cache / name for name in FILES]) if p.is_file()), None)


def missing(file: str | Path | None = None) -> str:
    """One line: what is looked for, where it is usually had, and how to know it."""
    looked = file or Path(torch.hub.get_dir()) / "checkpoints"
    return (
        f"no Inception weights at {looked}: they are {FILES[0]} from {HOMES[0]} or {FILES[1]} from {HOMES[1]} "
        f"(sha256 {SHA256}); give the file with --inception, or put it into torch's cache"
    )


class Inception(nn.Module):
    """Frozen, in eval mode."""

    def __init__(self, weights: dict[str, Tensor]):
        """weights: as both published files name them. RuntimeError where they are others."""
        super().__init__()
        self.published = False  # whether the file was
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Batch norm counts its batches, which nothing reads: files written by older versions lack the counts.
        state = {k.removeprefix("module."): v for k, v in weights.items() if "AuxLogits" not in k}
        for key in [k for k in state if k.endswith(".running_mean")]:
            state.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
        file = io.BytesIO()  # the constructor reads a file, and unpickles whatever is in it: only these tensors
        torch.save(state, file)
        file.seek(0)
        with torch.random.fork_rng(devices=[]):
            self.network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], file)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1], looked at as uint8 → pooled [N, 2048], logits [N, 1008] without bias."""
        pooled, logits = self.network(to_uint8(images).permute(0, 3, 1, 2).contiguous())
        return pooled, logits


def load(file: str | Path | None = None, device: torch.device | str = "cpu") -> Inception:
    """The network of a weight file, in either published form; None looks into torch's cache.

    Warns where the file is not the published one: its scores then compare with none but its own.
    """
    path = find(file)
    if path is None:
        raise UserError(missing(file))
    try:
        network = Inception(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling raises whatever a damaged or another file leads it to
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--inception {path}: cannot be read as {FILES[0]} ({reason}); {missing(file)}") from None
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    network.published = digest == SHA256
    if not network.published:
        warnings.warn(
            f"--inception {path}: sha256 {digest[:16]}..., not {SHA256[:16]}... of the published file: what it gives "
            "is no FID that compares with others'",
            stacklevel=2,
        )
    return network.to(device)
