"""Where pictures and captions come from: a reference in its seeded order, folders, and what training has seen of it."""

import io
import json
import tarfile

import pytest
import torch
from PIL import Image

from t2i.data import coco
from t2i.data.manifest import Options
from t2i.data.write import write_shards
from t2i.errors import UserError
from t2i.metrics import sources
from t2i.metrics.captions import digest, read_captions
from t2i.pictures import to_uint8


def test_captions_are_drawn_by_the_seed_and_longer_lists_begin_like_shorter(tiny_shards):
    a, b = sources.Reference(str(tiny_shards), 0), sources.Reference(str(tiny_shards), 1)
    assert a.captions(20) == a.captions(40)[:20]
    assert digest(a.captions(40)) != digest(b.captions(40))
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
    with pytest.raises(UserError, match=r"9\.png: 9×9, others have 8; --resize"):
        sources.Folder(tmp_path).pick([5])
    (tmp_path / "9.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"9\.png: cannot be read"):
        sources.Folder(tmp_path).pick([5])


def test_a_references_digest_is_of_its_samples_however_they_are_cut(tiny_shards, tmp_path):
    """The same samples in two tars of another name; one caption more is another reference."""
    (tar,) = sorted(tiny_shards.glob("*.tar"))
    with tarfile.open(tar) as whole:
        members = [(m, whole.extractfile(m).read()) for m in whole.getmembers()]
    stems = sorted({m.name.split(".")[0] for m, _ in members})
    for folder, last in (("cut", b""), ("other", b" ")):
        (tmp_path / folder).mkdir()
        for name, some in (("x-0.tar", stems[:15]), ("x-1.tar", stems[15:])):
            with tarfile.open(tmp_path / folder / name, "w") as part:
                for m, data in members:
                    if m.name.split(".")[0] in some:
                        changed = data.replace(b" on ", b" upon" + last) if last else data
                        m.size = len(changed)
                        part.addfile(m, io.BytesIO(changed))
    of = lambda path: sources.Reference(str(path)).digest()
    assert of(tmp_path / "cut") == of(tiny_shards)
    assert of(tmp_path / "other") != of(tiny_shards)


def folder_of(path, names, **options):
    """Pictures whose red is the number in their name."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (int("".join(c for c in name if c.isdigit())), 0, 0)).save(file)
    return lambda **more: sources.Folder(path, **(options | more))


def reds(folder):
    return to_uint8(folder.pick(range(len(folder.files))))[:, 0, 0, 0].tolist()


def test_folders_are_read_in_natural_order_with_what_is_in_them(tmp_path):
    make = folder_of(tmp_path / "p", [f"{n}.png" for n in range(12)] + ["sub/200.png", "._3.png", ".hidden/7.png"])
    (tmp_path / "c.txt").write_text("".join(f"caption {n}\n" for n in [*range(12), 200]))
    folder = make(captions=tmp_path / "c.txt")
    assert reds(folder) == [*range(12), 200]
    assert [c.text for c in folder.captions] == [f"caption {n}" for n in [*range(12), 200]]


def test_pictures_without_captions_are_judged_by_what_reads_none(tmp_path):
    folder = folder_of(tmp_path, ["1.png", "2.png"])()
    assert not folder.captioned
    assert folder.pairs(5) == []
    (tmp_path / "1.json").write_text('{"prompt": "one"}')
    with pytest.raises(UserError, match=r"no caption of 2\.png"):
        sources.Folder(tmp_path)


def test_pictures_are_upright_and_resized_when_asked(tmp_path):
    wide = Image.new("RGB", (40, 20), "blue")
    wide.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter right: red comes on top
    wide.save(tmp_path / "0.jpg", exif=exif, quality=95, subsampling=0)
    with pytest.raises(UserError, match="20×40; all must be squares of one size: --resize N"):
        sources.Folder(tmp_path)
    folder = sources.Folder(tmp_path, resize=10)
    assert (folder.resolution, folder.encoding) == (10, "JPEG")
    pixels = to_uint8(folder.pick([0]))[0]
    assert pixels[1, 5, 0] > 200 > 50 > pixels[8, 5, 0]


SECOND = "second\u2028with a line\u0085"
CONTENT = {
    "a.txt": "first\r\n\n SECOND \n",
    "tabs.txt": "b.png\tSECOND\na.png\tfirst\n",
    "a.jsonl": '{"file_name": "b.png", "caption": "SECOND"}\n{"file_name": "a.png", "text": "first"}\n',
    "plain.jsonl": '"first"\n"SECOND"\n',
    "header.csv": 'caption,file_name\n"SECOND",b.png\nfirst,a.png\n',
    "bare.csv": 'b.png,"SECOND"\na.png,first\n',
    "one.csv": 'first\n"SECOND"\n',
    "named.json": '{"b.png": "SECOND", "a.png": "first"}',
    "list.json": '["first", "SECOND"]',
    "names.json": '[{"image": "b.png", "prompt": "SECOND"}, {"image": "a.png", "prompt": "first"}]',
}


@pytest.mark.parametrize("name", CONTENT)
def test_caption_files_of_every_kind(name, tmp_path):
    (tmp_path / name).write_bytes(CONTENT[name].replace("SECOND", SECOND).encode())
    found = read_captions(tmp_path / name, ["a.png", "b.png"])
    assert [c.text.rstrip("\u0085") for c in found] == ["first", "second\u2028with a line"]
    nested = read_captions(tmp_path / name, ["x/a.png", "x/b.png"])
    assert nested == found


def test_cocos_results_are_matched_by_image_id(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps([{"image_id": i, "caption": f"of {i}"} for i in (42, 7)]))
    names = ["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000042.jpg"]
    assert [(c.text, c.image_id) for c in read_captions(tmp_path / "r.json", names)] == [("of 7", 7), ("of 42", 42)]
    assert [c.text for c in read_captions(tmp_path / "r.json")] == ["of 42", "of 7"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", '{"caption": "x"}\n{"caption": "y"}\n', "name it .jsonl"),
        ("a.txt", "one\n", "1 captions for 2 pictures"),
        ("a.csv", "one,two,three\nfour,five,six\n", "which column holds captions"),
        ("a.csv", "caption\na dog, running\na cat\n", "row 1 has 2 columns, not 1"),
        ("a.json", '{"annotations": []}', "several captions a picture"),
        ("a.json", '{"a.png": "one"}', "none of b.png"),
        ("a.jsonl", '{"file_name": "a.png"}\n', "is no caption"),
        ("a.jsonl", "{broken\n", "cannot be read"),
        ("a.txt", "\n", "no captions there"),
    ],
)
def test_caption_files_that_cannot_be_told_are_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_captions(tmp_path / name, ["a.png", "b.png"])
    assert len(str(error.value).split("\n")) == 1


def test_names_that_have_no_order_need_a_file_with_names(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"01\.png and 1\.png have no order"):
        read_captions(tmp_path / "a.txt", ["01.png", "1.png"])


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
