"""Pictures as people see them: pixels, and grids with labels."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → [N, H, W, 3] uint8; the exact inverse of pixel / 127.5 - 1."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def picture_grid(images: Tensor, columns: int, labels: Sequence[str] | None = None, scale: int = 1) -> Image.Image:
    """Pictures [N, 3, H, W] in [-1, 1] in rows of `columns`, each pixel drawn as scale × scale.

    labels: one a row, written across above it, or one a picture, written above that; "" leaves no band.
    A long one is wrapped to two lines and then shortened.
    """
    pixels = to_uint8(images).cpu().numpy()
    number, height, width = len(pixels), images.shape[2] * scale, images.shape[3] * scale
    rows = -(-number // columns)
    labels = list(labels) if labels is not None else [""] * rows
    if len(labels) not in (rows, number):
        raise ValueError(f"{len(labels)} labels for {rows} rows of {number} pictures")
    gap, across = 2, 1 if len(labels) == rows else columns  # labels side by side
    breadth = columns * (width + gap) - gap
    font = ImageFont.load_default(size=12)
    line = sum(font.getmetrics()) + 1 if isinstance(font, ImageFont.FreeTypeFont) else 12
    wrapped = [_wrap(label, font, breadth if across == 1 else width) for label in labels]
    bands = [line * max(len(w) for w in wrapped[r * across : (r + 1) * across]) for r in range(rows)]
    sheet = Image.new("RGB", (breadth, sum(bands) + rows * (height + gap) - gap), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for row, band in enumerate(bands):
        for k, lines in enumerate(wrapped[row * across : (row + 1) * across]):
            for i, words in enumerate(lines):
                draw.text((k * (width + gap) + 1, top + i * line), words, fill="black", font=font)
        top += band
        for column, picture in enumerate(pixels[row * columns : (row + 1) * columns]):
            tile = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (width + gap), top))
        top += height + gap
    return sheet


def _wrap(label: str, font: Any, width: int, most: int = 2) -> list[str]:
    """A label as at most so many lines of at most `width` pixels."""
    lines: list[str] = []
    for word in label.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    short = len(lines) > most
    lines = lines[:most]
    for i, text in enumerate(lines):
        end = "…" if short and i == most - 1 else ""
        while text and font.getlength(text + end) > width:
            text, end = text[:-1], "…"
        lines[i] = text + end
    return lines
