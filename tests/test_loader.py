"""Shards → batches: the same ones however the work is split, and nothing lost or repeated in silence."""

import functools
import http.server
import io
import json
import multiprocessing
import os
import random
import re
import signal
import tarfile
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from t2i.data import captions, coco
from t2i.data.loader import Loader
from t2i.data.manifest import Options
from t2i.data.order import Order
from t2i.data.samples import Samples
from t2i.data.write import write_shards
from t2i.errors import UserError

COUNT, SIDE = 30, 8


def picture(i: int) -> Image.Image:
    """Left half of brightness 8·i, right half black: number and mirroring can be read off."""
    array = np.zeros((SIDE, SIDE, 3), np.uint8)
    array[:, : SIDE // 2] = 8 * i
    return Image.fromarray(array)


def texts(i: int) -> list[str]:
    return [f"picture {i} in word {k}" for k in range(3)]


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    """key → extension → bytes, as a tar by another program would be."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def sample(i: int, texts_of=texts, **members: bytes) -> dict[str, bytes]:
    data = io.BytesIO()
    picture(i).save(data, "JPEG", quality=100, subsampling=0)
    meta = json.dumps({"image_id": i, "captions": texts_of(i)}).encode()
    return {"jpg": data.getvalue(), "json": meta} | members


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """COUNT samples in shards of 7, made by make_shards' own code."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    pictures = []
    for i in range(COUNT):
        picture(i).save(root / "images" / f"{i}.jpg", quality=100, subsampling=0)
        pictures.append(coco.Picture(i, f"{i}.jpg", tuple(texts(i))))
    options = Options(size=SIDE, per_shard=7)
    write_shards(coco.Annotations("", pictures), root / "images", root / "out", options, {})
    return root / "out"


def take(count: int, *arguments, **options) -> list:
    batches = iter(Loader(*arguments, **{"workers": 0, **options}))
    taken = list(islice(batches, count))
    batches.close()
    return taken


def same(a, b) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.image_id, b.image_id)
        and (a.captions, a.captions2, a.broken) == (b.captions, b.captions2, b.broken)
    )


# --- content


def test_batches_hold_what_was_stored(folder):
    for batch in take(6, str(folder), 5):
        assert (batch.image.shape, batch.image.dtype) == ((5, 3, SIDE, SIDE), torch.float32)
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert batch.image_id.dtype == torch.int64
        assert batch.captions2 is None
        for image, i, caption in zip(batch.image, batch.image_id.tolist(), batch.captions):
            assert caption in texts(i)
            assert torch.allclose(image[:, :, :3], torch.tensor(8 * i / 127.5 - 1), atol=0.04)
            assert torch.allclose(image[:, :, 5:], torch.tensor(-1.0), atol=0.04)


def test_white_is_one_and_black_is_minus_one(tmp_path):
    for i, color in enumerate(("black", "white")):
        data = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(data, "PNG")
        write_tar(tmp_path / f"{i}.tar", {"a": {"png": data.getvalue(), "json": b'{"captions": ["x"]}'}})
    assert (take(1, str(tmp_path / "0.tar"), 1)[0].image == -1).all()
    assert (take(1, str(tmp_path / "1.tar"), 1)[0].image == 1).all()


def test_every_caption_is_drawn(folder):
    drawn = {c for batch in take(60, str(folder), 10) for c in batch.captions}
    assert drawn == {c for i in range(COUNT) for c in texts(i)}


def test_two_captions_differ(folder):
    for batch, single in zip(take(6, str(folder), 10, two_captions=True), take(6, str(folder), 10)):
        assert batch.captions == single.captions  # asking for a second one changes nothing else
        for i, one, two in zip(batch.image_id.tolist(), batch.captions, batch.captions2):
            assert one != two
            assert {one, two} <= set(texts(i))


def test_one_caption_stands_in_for_two():
    rng = random.Random(0)
    for only in (["a"], ["a", "a"]):
        assert captions.draw(only, rng.random(), rng.random()) == (0, 0)
    assert {captions.draw(["a", "b", "a"], rng.random(), rng.random()) for _ in range(50)} == {(0, 1), (1, 0)}


# --- the order


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50).filter(sum), st.integers(0, 5), st.integers(0, 10**6))
def test_every_epoch_holds_every_sample_once(counts, seed, epoch):
    order, count = Order(counts, seed), sum(counts)
    assert sorted(order(epoch * count + k) for k in range(count)) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [[Order([50, 50], seed)(100 * epoch + k) for k in range(100)] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    # Shuffled over the shards too: the first half is not one shard.
    assert 10 < sum(n < 50 for n in orders[0][:50]) < 40


def test_few_remote_shards_are_needed_at_a_time():
    order = Order([10] * 64, seed=3)
    assert len({order(p) // 10 for p in range(160)}) == 16


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(folder, workers):
    options = {"seed": 5, "mirror": True, "two_captions": True}
    alone, spread = take(9, str(folder), 4, **options), take(9, str(folder), 4, workers=workers, **options)
    assert all(same(a, b) for a, b in zip(alone, spread, strict=True))


@settings(max_examples=20)
@given(st.integers(0, 12), st.integers(1, 7), st.integers(0, 3))
def test_a_start_in_the_middle_continues_exactly(folder, start, batch, seed):
    whole = take(start + 2, str(folder), batch, seed=seed, mirror=True)
    resumed = take(2, str(folder), batch, seed=seed, mirror=True, start=start * batch)
    assert all(same(a, b) for a, b in zip(whole[start:], resumed, strict=True))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=6), st.integers(0, 70))
def test_the_size_of_a_batch_may_change_in_the_middle(folder, sizes, start):
    """Any sequence of batch sizes and numbers of processes gives the stream of samples that batches of one give."""
    options = {"seed": 3, "mirror": True, "two_captions": True, "word_dropout": 0.2, "paraphrase": 0.5}
    rows = lambda b: list(zip(b.image_id.tolist(), b.captions, b.captions2, b.image.flatten(1).tolist()))
    total, changed = sum(batch * world for batch, world in sizes), []
    singly = [row for b in take(total, str(folder), 1, start=start, **options) for row in rows(b)]
    position = start
    for batch, world in sizes:
        part = {"start": position, "world": world, **options}
        parts = [rows(take(1, str(folder), batch, rank=rank, **part)[0]) for rank in range(world)]
        changed += [row for one_of_each in zip(*parts) for row in one_of_each]
        position += batch * world
    assert changed == singly


def test_a_loader_continues_elsewhere_without_opening_its_shards_again(folder, monkeypatch):
    opened = Loader(str(folder), 5, seed=3, workers=0, mirror=True)
    expected = take(4, str(folder), 3, seed=3, start=7, workers=0, mirror=True, two_captions=True)
    monkeypatch.setattr("t2i.data.loader.Samples", None)
    other = opened.continued(7, 3, two_captions=True)
    assert all(same(a, b) for a, b in zip(islice(other, 4), expected, strict=True))
    assert next(iter(opened)).captions2 is None
    assert len(next(iter(opened)).image) == 5


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_global_batch(folder, world):
    whole = take(8, str(folder), 6, mirror=True)
    parts = [take(8, str(folder), 6 // world, mirror=True, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            part = parts[rank][step]
            assert torch.equal(part.image, batch.image[rank::world])
            assert part.captions == batch.captions[rank::world]


def test_other_random_numbers_are_left_alone(folder):
    state = torch.get_rng_state()
    take(2, str(folder), 4, workers=1)
    assert torch.equal(torch.get_rng_state(), state)


# --- mirroring


def test_half_of_the_pictures_are_flipped(folder):
    flips = [
        bool(image[0, 0, 0] < image[0, 0, -1])
        for batch in take(20, str(folder), 20, mirror=True)
        for image, i in zip(batch.image, batch.image_id.tolist())
        if i > 2
    ]
    assert 0.4 < np.mean(flips) < 0.6
    again = take(20, str(folder), 20)
    assert not any(bool(image[0, 0, 0] < image[0, 0, -1] - 0.1) for batch in again for image in batch.image)


def test_no_picture_is_flipped_against_its_caption(tmp_path):
    def words(i: int) -> list[str]:
        return ["a dog on the left", "a dog"]

    write_tar(tmp_path / "a.tar", {str(i): sample(i, words) for i in range(10, 30)})
    seen = {"a dog": set(), "a dog on the left": set()}
    for batch in take(10, str(tmp_path / "a.tar"), 20, mirror=True):
        for image, caption in zip(batch.image, batch.captions):
            seen[caption].add(bool(image[0, 0, 0] < image[0, 0, -1]))
    assert seen == {"a dog": {False, True}, "a dog on the left": {False}}
    both = take(10, str(tmp_path / "a.tar"), 20, mirror=True, two_captions=True)  # the second caption counts as well
    assert not any(bool(image[0, 0, 0] < image[0, 0, -1]) for batch in both for image in batch.image)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A bus on the left.", True),
        ("LEFT of the tree", True),
        ("the right-hand side", True),
        ("the rightmost zebra", True),
        ("a left-handed batter", True),
        ("walking rightwards", True),
        ("on its lefthand side", True),
        ("a bright light", False),
        ("an upright piano", False),
        ("leftovers on a plate", False),
        ("a copyright sign", False),
        ("", False),
    ],
)
def test_which_captions_say_a_side(caption, expected):
    assert captions.says_side(caption) is expected


# --- other fields


def npy(value: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, value)
    return data.getvalue()


def test_cached_fields_reach_the_batch(tmp_path):
    samples = {
        str(i): sample(i, **{"feature.npy": npy(np.full((2, 3), i, np.float16)), "score.npy": npy(np.int64(7 * i))})
        for i in range(6)
    }
    write_tar(tmp_path / "a.tar", samples)
    for workers in (0, 1):
        batch = take(1, str(tmp_path / "a.tar"), 6, workers=workers)[0]
        assert set(batch.extra) == {"feature", "score"}
        assert batch.extra["feature"].shape == (6, 2, 3)
        assert batch.extra["feature"].dtype == torch.float16
        assert batch.extra["feature"][:, 0, 0].tolist() == batch.image_id.tolist()
        assert batch.extra["score"].tolist() == (7 * batch.image_id).tolist()
    samples["3"].pop("feature.npy")
    write_tar(tmp_path / "a.tar", samples)
    assert take(1, str(tmp_path / "a.tar"), 6, max_broken=0.5)[0].broken == [
        "a.tar: 3: feature.npy is missing or of another shape"
    ]


def test_ground_truth_can_be_read_by_number(tiny_shards):
    samples = Samples(str(tiny_shards))
    assert len(samples) == 40
    one = samples.read(7)
    assert one.meta["attributes"]["objects"]
    assert (one.image.shape, one.image.dtype, one.image_id) == ((3, 16, 16), torch.uint8, 7)


# --- broken samples


GOOD = {str(i): sample(i) for i in range(20)}
BROKEN = {
    "truncated": (GOOD["5"] | {"jpg": GOOD["5"]["jpg"][:150]}, "incomplete or truncated"),
    "no jpeg": (GOOD["5"] | {"jpg": b"hello"}, ""),
    "no bytes": (GOOD["5"] | {"jpg": b""}, ""),
    "json": (GOOD["5"] | {"json": b"{"}, "json: "),
    "other json": (GOOD["5"] | {"json": b"[1]"}, "json: "),
    "no captions": (GOOD["5"] | {"json": b'{"captions": []}'}, "no captions"),
    "captions are text": (GOOD["5"] | {"json": b'{"captions": "abc"}'}, "json: TypeError"),
    "no picture": ({"json": GOOD["5"]["json"]}, "no picture"),
    "only picture": ({"jpg": GOOD["5"]["jpg"]}, "no json"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_sample_is_replaced_and_named(tmp_path, kind, caplog):
    broken, reason = BROKEN[kind]
    write_tar(tmp_path / "a.tar", GOOD | {"5": broken})
    loader = Loader(str(tmp_path / "a.tar"), 10, workers=0, max_broken=0.05)
    batches = list(islice(iter(loader), 2))  # one epoch
    (line,) = [line for batch in batches for line in batch.broken]
    assert line.startswith("a.tar: 5: ")
    assert reason in line
    assert loader.broken_count == 1
    assert line in caplog.text
    ids = torch.cat([batch.image_id for batch in batches]).tolist()
    assert len(ids) == 20
    assert 5 not in ids
    assert set(range(20)) - {5} == set(ids)
    assert all(same(a, b) for a, b in zip(batches, take(2, str(tmp_path / "a.tar"), 10, max_broken=0.05, workers=1)))


def test_a_picture_of_another_size_is_broken(tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (9, 8)).save(data, "JPEG")
    write_tar(tmp_path / "a.tar", GOOD | {"5": GOOD["5"] | {"jpg": data.getvalue()}})
    lines = [line for batch in take(2, str(tmp_path / "a.tar"), 10, max_broken=0.05) for line in batch.broken]
    assert lines == ["a.tar: 5: the picture is 9×8"]


def test_too_many_broken_samples_stop_the_run(tmp_path):
    bad = {str(i): GOOD[str(i)] | {"jpg": b"x"} for i in (3, 7, 11)}
    write_tar(tmp_path / "a.tar", GOOD | bad)
    for workers in (0, 1):
        with pytest.raises(
            UserError, match=r"data\.max_broken=0\.1: 3 of \d+ samples read are broken .*a\.tar: "
        ) as error:
            take(10, str(tmp_path / "a.tar"), 2, max_broken=0.1, workers=workers)
        assert "\n" not in str(error.value)
    take(40, str(tmp_path / "a.tar"), 2, max_broken=0.15)  # three of twenty: at the limit, also epochs later


def test_nothing_readable_is_one_clear_line(tmp_path):
    write_tar(tmp_path / "a.tar", {str(i): {"jpg": b"x", "json": GOOD["1"]["json"]} for i in range(30)})
    with pytest.raises(UserError, match="no sample can be read"):
        Loader(str(tmp_path / "a.tar"), 4)
    write_tar(tmp_path / "a.tar", {str(i): GOOD["1"] if i == 0 else {"jpg": b"x"} for i in range(400)})
    with pytest.raises(UserError, match="in a row are broken") as error:
        take(50, str(tmp_path / "a.tar"), 4, max_broken=0.99, workers=1)
    assert "\n" not in str(error.value)


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        if not path.name.startswith("."):
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_cut_tar_is_noticed(folder, tmp_path, caplog):
    out = copy(folder, tmp_path / "cut")
    tar = out / "shard-000001.tar"
    data = tar.read_bytes()
    with tarfile.open(tar) as whole:
        tar.write_bytes(data[: whole.getmembers()[5].offset_data + 20])  # two samples whole, the third's JSON cut
    loader = Loader(str(out), 10, workers=0, max_broken=0.5)
    assert loader.count == COUNT  # the manifest's count: what is gone is broken, not forgotten
    assert f"{len(data)}" in caplog.text
    assert "shard-000001.tar" in caplog.text
    lines = [line for batch in islice(iter(loader), 3) for line in batch.broken if "shard-000001.tar" in line]
    assert len(set(lines)) == 5
    assert sum("not in the tar" in line for line in set(lines)) == 4
    # Without a manifest the loss is at least said.
    (out / "manifest.json").unlink()
    caplog.clear()
    assert Loader(str(out), 10, workers=0).count == COUNT - 4
    assert "shard-000001.tar: cut off or damaged after 3 samples" in caplog.text


def test_a_damaged_header_is_noticed(folder, tmp_path, caplog):
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    with tarfile.open(folder / "shard-000000.tar") as tar:
        at = tar.getmembers()[4].offset
    data[at : at + 100] = b"\xff" * 100
    (tmp_path / "a.tar").write_bytes(data)
    assert Loader(str(tmp_path / "a.tar"), 2).count == 2
    assert "a.tar: cut off or damaged after 2 samples" in caplog.text


def test_an_undamaged_set_says_nothing(folder, tmp_path, caplog):
    Loader(str(folder), 2)
    write_tar(tmp_path / "a.tar", GOOD)
    assert Loader(str(tmp_path / "a.tar"), 2).count == 20
    assert caplog.text == ""


def test_a_killed_worker_is_an_error_not_a_hang(folder):
    batches = iter(Loader(str(folder), 2, workers=1))
    next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.1)  # nothing is raised in the midst of other work
    with pytest.raises(UserError, match=r"data\.workers=1: one of them was killed"):
        list(islice(batches, 100))


# --- where shards come from


def ids(source: str, **options) -> list[int]:
    loader = Loader(source, COUNT, workers=0, **options)
    return sorted(next(iter(loader)).image_id.tolist())[: loader.count]


def test_folders_globs_braces_lists(folder):
    assert Loader(str(folder), 2).count == COUNT
    assert Loader(f"{folder}/", 2).count == COUNT
    assert Loader(f"{folder}/shard-00000[01].tar", 2).count == 14
    assert Loader(f"{folder}/shard-{{000000..000002}}.tar", 2).count == 21
    assert Loader(f"{folder}/shard-000004.tar", 2).count == 2
    assert Loader(f"file:{folder}/shard-000004.tar", 2).count == 2
    assert Loader(f"{folder}/shard-000000.tar::{folder}/shard-000004.tar", 2).count == 9


def test_pipes_are_run_once(folder, tmp_path):
    log = tmp_path / "log"
    source = f"pipe:echo x >> {log}; cat {folder}/shard-{{000000..000004}}.tar"
    direct = take(4, str(folder), 5)
    for _ in range(2):
        piped = take(4, source, 5, cache=tmp_path / "cache", workers=1)
        assert all(same(a, b) for a, b in zip(direct, piped, strict=True))
    assert log.read_text() == "x\n" * 5
    with pytest.raises(UserError, match="pipe:false"):
        Loader("pipe:false", 2, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tmp"))


@pytest.fixture
def server(folder, monkeypatch):
    """(address of `folder`, paths asked for)."""
    monkeypatch.setenv("no_proxy", "*")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    ) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


def test_http_folder_and_tars(folder, server, tmp_path):
    address, asked = server
    direct = take(4, str(folder), 5)
    for source in (address, f"{address}/shard-{{000000..000004}}.tar"):
        fetched = take(4, source, 5, cache=tmp_path / "cache", workers=2)
        assert all(same(a, b) for a, b in zip(direct, fetched, strict=True))
    assert sorted(p for p in asked if p.endswith(".tar")) == [f"/shard-{i:06d}.tar" for i in range(5)]  # each once
    with pytest.raises(UserError, match=r"cannot fetch .*none\.tar .*404"):
        Loader(f"{address}/none.tar", 2, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="cannot fetch nope:"):
        Loader("nope://a.tar", 2, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="no manifest"):
        Loader(f"{address}/nowhere", 2, cache=tmp_path / "cache")


def test_remote_shards_come_when_they_are_needed(server, tmp_path):
    address, asked = server
    Loader(address, 5, cache=tmp_path / "cache", resolution=SIDE)
    assert [p for p in asked if p.endswith(".tar")] == ["/shard-000000.tar"]


# --- mistakes


def test_no_shards(tmp_path):
    def error(source: Path | str) -> str:
        with pytest.raises(UserError) as raised:
            Loader(str(source), 2)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    (tmp_path / "empty").mkdir()
    assert re.search(r"make_shards.py coco .*--out \S*/empty", error(tmp_path / "empty"))
    assert "make_shards.py scenes --out" in error(tmp_path / "scenes-train-64")
    assert "make_shards.py coco" in error(tmp_path / "*.tar")
    assert "nothing.tar is not there" in error(tmp_path / "nothing.tar")
    assert "data.shards=" in error("a{b")
    write_tar(tmp_path / "none.tar", {})
    assert "no samples" in error(tmp_path / "none.tar")
    (tmp_path / "text.tar").write_text("not a tar")
    assert "no samples" in error(tmp_path / "text.tar")


def test_a_shard_that_the_manifest_lists_is_missing(folder, tmp_path):
    out = copy(folder, tmp_path / "out")
    (out / "shard-000003.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000003\.tar is not there though its manifest lists it"):
        Loader(str(out), 2)


def test_another_resolution(folder):
    assert Loader(str(folder), 2).resolution == SIDE
    with pytest.raises(
        UserError, match=rf"model\.resolution=64: .* are {SIDE}×{SIDE}; .*make_shards.py .*--size 64"
    ) as error:
        Loader(str(folder), 2, resolution=64)
    assert "\n" not in str(error.value)
