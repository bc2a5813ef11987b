"""Features of captioned pictures by a CLIP, or of captions by any text encoder, to be stored beside them in shards."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg


class Features:
    """JPEGs and their captions → the .npy members that the loader yields as clip_image and clip_text."""

    def __init__(self, text: Any, clip: Any = None):
        """text: a t2i.encoders.text.TextEncoder. clip: the t2i.encoders.clip.Clip that it belongs to, if it does."""
        self.text, self.clip = text, clip
        self.device = next(text.network.parameters()).device

    @property
    def fingerprint(self) -> str:
        return self.text.model.fingerprint

    @torch.no_grad()
    def __call__(self, jpegs: Sequence[bytes], captions: Sequence[Sequence[str]]) -> list[dict[str, bytes]]:
        """For each picture clip_image.npy, [2, C] float16: its features and those of its mirror image, whole, without
        crops, where there is a CLIP; and clip_text.npy, [captions, C] float16. Unit length, but for the rounding.

        A feature's last bits depend on the pictures it is computed beside, so the same calls give the same bytes.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums come out differently by the number of threads
        try:
            text = self.text([caption for each in captions for caption in each]).sentence  # [all captions, C]
            members = [{"clip_text.npy": _npy(rows)} for rows in text.split([len(each) for each in captions])]
            if self.clip is not None:
                for member, images in zip(members, self._of_pictures(jpegs)):
                    member["clip_image.npy"] = _npy(images)
        finally:
            torch.set_num_threads(threads)
        return [dict(sorted(member.items())) for member in members]

    def _of_pictures(self, jpegs: Sequence[bytes]) -> Tensor:
        """[N, 2, C]."""
        pictures = [decode_jpeg(torch.frombuffer(bytearray(j), dtype=torch.uint8), ImageReadMode.RGB) for j in jpegs]
        image = torch.stack(pictures).to(self.device).float() / 127.5 - 1  # [N, 3, H, W]
        both = self.clip.features(torch.cat([image, image.flip(-1)])).unflatten(0, (2, -1))  # [2, N, C]
        return both.transpose(0, 1)


def _npy(value: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, value.half().cpu().numpy())
    return file.getvalue()
