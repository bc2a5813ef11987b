"""Where pictures and captions come from: a reference in its seeded order, folders, and what training has seen of it."""

import json

import pytest
import torch
from PIL import Image

from t2i.data import coco
from t2i.data.manifest import Options
from t2i.data.write import write_shards
from t2i.errors import UserError
from t2i.metrics import sources
from t2i.pictures import to_uint8


def test_captions_are_drawn_by_the_seed_and_longer_lists_begin_like_shorter(tiny_shards):
    a, b = sources.Reference(str(tiny_shards), 0), sources.Reference(str(tiny_shards), 1)
    assert a.captions(20) == a.captions(40)[:20]
    assert sources.digest(a.captions(40)) != sources.digest(b.captions(40))
    for n, caption in enumerate(a.captions(40)):
        assert caption.text in a.all_captions(n)
        assert caption.object is not None
    assert len(set(a.order)) == 40
    assert torch.equal(a.pick([3, 7])[1:], a.pick([7]))


def test_pictures_bring_their_captions_and_their_pairs(tmp_path):
    for n, caption in enumerate(["a dog", "a cat", "a dog", "a dog", "a dog"]):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.json").write_text(json.dumps({"prompt": caption}))
    folder = sources.Folder(tmp_path)
    assert [c.text for c in folder.captions] == ["a dog", "a cat", "a dog", "a dog", "a dog"]
    assert folder.pairs(9) == [(0, 2), (3, 4)]
    assert folder.pairs(1) == [(0, 2)]
    assert to_uint8(folder.pick([3]))[0, 0, 0].tolist() == [3, 0, 0]
    (tmp_path / "named.json").write_text(json.dumps({f"{n}.png": f"caption {n}" for n in range(5)}))
    assert sources.Folder(tmp_path, tmp_path / "named.json").captions[4].text == "caption 4"
    Image.new("RGB", (9, 9)).save(tmp_path / "9.png")
    (tmp_path / "9.json").write_text('{"prompt": "odd"}')
    with pytest.raises(UserError, match=r"9\.png: 9×9, others have 8"):
        sources.Folder(tmp_path).pick([5])
    (tmp_path / "9.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"9\.png: cannot be read"):
        sources.Folder(tmp_path).pick([5])


def test_leakage_is_by_picture_and_captions_not_by_number_alone(tiny_shards, tmp_path):
    """Two data sets that both count from 0 share nothing."""
    file, images = tmp_path / "captions.json", tmp_path / "images"
    images.mkdir()
    reference = sources.Reference(str(tiny_shards))
    samples = [reference.samples.look_up(n) for n in range(4)]
    texts = [samples[0].captions, samples[1].captions, ["something else"], ["and more"]]
    listed = [{"id": s.image_id, "file_name": f"{s.image_id}.png"} for s in samples]
    said = [
        {"id": 10 * i + k, "image_id": s.image_id, "caption": t}
        for i, s in enumerate(samples)
        for k, t in enumerate(texts[i])
    ]
    for entry in listed:
        Image.new("RGB", (16, 16)).save(images / entry["file_name"])
    file.write_text(json.dumps({"images": listed, "annotations": said}))
    write_shards(coco.read(file), images, tmp_path / "train", Options(size=16), {"kind": "coco"}, workers=1)
    with pytest.warns(UserWarning, match="leakage: 2 of the 40"):
        assert sources.overlap(str(tmp_path / "train"), reference) == 2
    assert sources.overlap(str(tmp_path / "nowhere"), reference) is None
