"""Every kind of picture file → a square RGB JPEG."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i.data.manifest import Options
from t2i.data.prepare import prepare_picture


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def flat(color: tuple[int, int, int], mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (24, 16), color).convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


GREY16 = Image.fromarray(np.full((16, 24), 200 * 257, np.uint16))
CLEAR_RED = Image.new("RGBA", (24, 16), (255, 0, 0, 0))
PALETTE = flat((200, 30, 60)).quantize(4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(flat((90, 90, 90), "L"), "JPEG"), (90, 90, 90)),
        (saved(flat((200, 30, 60), "CMYK"), "JPEG", quality=100), (200, 30, 60)),
        (saved(PALETTE), (200, 30, 60)),
        (saved(PALETTE, transparency=0), (255, 255, 255)),  # the palette's only colour is the clear one
        (saved(GREY16), (200, 200, 200)),
        (saved(CLEAR_RED), (255, 255, 255)),
        (saved(flat((90, 90, 90), "LA")), (90, 90, 90)),
        (saved(flat((255, 255, 255), "1")), (255, 255, 255)),
        (saved(flat((200, 30, 60)), "BMP"), (200, 30, 60)),
    ],
    ids=["grey", "cmyk", "palette", "clear palette", "16 bit", "clear", "grey alpha", "1 bit", "bmp"],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, data, expected):
    path = tmp_path / "picture"
    path.write_bytes(data)
    made, width, height = prepare_picture(path, Options(size=8))
    image = Image.open(io.BytesIO(made))
    assert (image.format, image.mode, image.size, (width, height)) == ("JPEG", "RGB", (8, 8), (24, 16))
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3


def stripes(width: int, height: int) -> Image.Image:
    """Left third red, middle green, right third blue."""
    array = np.zeros((height, width, 3), np.uint8)
    for i in range(3):
        array[:, i * width // 3 : (i + 1) * width // 3, i] = 255
    return Image.fromarray(array)


def test_crop_and_squash(tmp_path):
    path = tmp_path / "wide.png"
    stripes(96, 32).save(path)
    crop, *_ = prepare_picture(path, Options(size=16))
    squash, *_ = prepare_picture(path, Options(size=16, fit="squash"))
    middle = np.asarray(Image.open(io.BytesIO(crop))).astype(int)
    whole = np.asarray(Image.open(io.BytesIO(squash))).astype(int)
    assert np.abs(middle - (0, 255, 0)).max() <= 3  # nothing of the neighbours enters at the cut
    assert np.abs(whole[8, [2, 8, 13]] - [(255, 0, 0), (0, 255, 0), (0, 0, 255)]).max() <= 12


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn a quarter clockwise to see it upright
    path = tmp_path / "turned.jpg"
    path.write_bytes(saved(stripes(96, 32), "JPEG", exif=exif, subsampling=0, quality=95))
    made, width, height = prepare_picture(path, Options(size=16, fit="squash"))
    assert (width, height) == (32, 96)
    column = np.asarray(Image.open(io.BytesIO(made))).astype(int)[[2, 8, 13], 8]
    assert column.argmax(1).tolist() == [0, 1, 2]  # left has become top


def test_a_picture_that_fits_is_stored_as_it_is(tmp_path):
    path = tmp_path / "fits.jpg"
    path.write_bytes(saved(noise(16, 16), "JPEG", quality=70))
    assert prepare_picture(path, Options(size=16))[0] == path.read_bytes()
    path.write_bytes(saved(noise(16, 16).convert("L"), "JPEG"))
    assert prepare_picture(path, Options(size=16))[0] != path.read_bytes()
