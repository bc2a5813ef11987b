"""COCO annotations and pictures → shards: every picture accounted for, the same bytes every time."""

import gc
import hashlib
import io
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from t2i.data import coco
from t2i.data.manifest import Options, shard_name
from t2i.data.write import write_shards
from t2i.errors import UserError

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "coco-sample"
SCRIPT = str(REPOSITORY / "scripts" / "make_shards.py")
SOURCE = {"kind": "coco", "annotations": "test"}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_set(folder: Path, pictures: dict[int, Image.Image | bytes | None]) -> tuple[Path, Path]:
    """id → picture, the file's bytes, or None for a missing file. Two captions each. Returns images, annotations."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    entries, annotations = [], []
    for i, picture in pictures.items():
        entries.append({"id": i, "file_name": f"{i}.jpg", "width": 1, "height": 1, "license": 3})
        annotations += [{"id": 10 * i + k, "image_id": i, "caption": f" caption {k}\nof {i}. "} for k in range(2)]
        if isinstance(picture, Image.Image):
            picture.save(images / f"{i}.jpg", "JPEG" if picture.mode in ("RGB", "L", "CMYK") else "PNG")
        elif picture is not None:
            (images / f"{i}.jpg").write_bytes(picture)
    path = folder / "captions.json"
    path.write_text(json.dumps({"info": {}, "images": entries, "annotations": annotations}))
    return images, path


def make(folder: Path, out: Path, size: int = 16, per_shard: int = 4, source: dict = SOURCE, **more) -> dict:
    known = {k: more.pop(k) for k in ("fit", "limit", "clip") if k in more}
    options = Options(size=size, per_shard=per_shard, **known)
    return write_shards(coco.read(folder / "captions.json"), folder / "images", out, options, source, **more)


def samples(out: Path) -> dict[int, tuple[Image.Image, dict]]:
    """image id → picture, JSON, over all tars of the manifest, read by tarfile; fails where one is there twice."""
    found: dict[int, tuple[Image.Image, dict]] = {}
    for record in json.loads((out / "manifest.json").read_text())["shards"]:
        with tarfile.open(out / record["file"]) as tar:
            names = tar.getnames()
            assert len(names) == 2 * record["samples"]
            for name in names:
                if name.endswith(".json"):
                    meta = json.load(tar.extractfile(name))
                    image = Image.open(io.BytesIO(tar.extractfile(name.replace(".json", ".jpg")).read()))
                    image.load()
                    assert name == f"{meta['image_id']:012d}.json"
                    assert meta["image_id"] not in found
                    found[meta["image_id"]] = (image, meta)
    return found


def contents(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if not p.name.startswith(".")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, SCRIPT, *map(str, arguments)]


@pytest.fixture
def run(monkeypatch, capsys):
    """The command, in this process for speed: run(arguments) → exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            runpy.run_path(SCRIPT, run_name="__main__")
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return call


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves a file open
def test_the_real_sample_by_the_command(tmp_path):
    if not SAMPLE.is_dir():
        pytest.skip("../shared/data/coco-sample is not here")
    given = ("--images", SAMPLE / "train2017", "--annotations", SAMPLE / "annotations" / "captions_train2017.json")
    out = tmp_path / "out"
    arguments = command("coco", *given, "--out", out, "--size", 64, "--per-shard", 50, "--workers", 2)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 130 samples with 650 captions in 3 shards")  # pycocotools says nothing
    official = json.loads((SAMPLE / "annotations" / "captions_train2017.json").read_text())
    found = samples(out)
    assert sorted(found) == sorted(i["id"] for i in official["images"])
    for image in official["images"]:
        picture, meta = found[image["id"]]
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        for name in ("license", "width", "height", "file_name"):
            assert meta[name] == image[name]
        captions = [a["caption"] for a in official["annotations"] if a["image_id"] == image["id"]]
        assert meta["captions"] == [" ".join(c.split()) for c in captions]
    # The library that the format is named after reads them too.
    read = webdataset.WebDataset(str(out / "shard-{000000..000002}.tar"), shardshuffle=False, empty_check=False)
    assert [int(s["__key__"]) for s in read] == sorted(found)
    gc.collect()


def test_bytes_do_not_depend_on_workers(tmp_path):
    write_set(tmp_path, {i: noise(40, 30, i) for i in range(70)} | {70: None})
    for workers in (1, 2):
        make(tmp_path, tmp_path / str(workers), per_shard=20, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    manifest = json.loads((tmp_path / "1" / "manifest.json").read_text())
    assert (manifest["samples"], manifest["captions"], manifest["pictures"], manifest["bad"]) == (70, 140, 71, 1)
    assert [r["samples"] for r in manifest["shards"]] == [20, 20, 20, 10]
    for record in manifest["shards"]:
        data = (tmp_path / "1" / record["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record["bytes"], record["sha256"])


def test_killed_and_continued_equals_uninterrupted(tmp_path, run):
    images, annotations = write_set(tmp_path, {i: noise(300, 200, i) for i in range(60)} | {60: b"", 61: None})
    given = ("coco", "--images", images, "--annotations", annotations, "--size", 128, "--per-shard", 6)
    assert run(*given, "--out", tmp_path / "whole", "--workers", 1)[0] == 0
    out = tmp_path / "killed"
    process = subprocess.Popen(command(*given, "--out", out, "--workers", 2), stderr=subprocess.DEVNULL)
    while not (out / "shard-000002.tar").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (out / "manifest.json").exists()
    first = os.stat(out / "shard-000000.tar").st_mtime_ns
    assert run(*given, "--out", out, "--workers", 1)[0] == 0  # workers of the killed run do not hold it up
    assert os.stat(out / "shard-000000.tar").st_mtime_ns == first  # kept, not made again
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(samples(out)) == list(range(60))
    assert {p.name for p in out.iterdir() if p.name.startswith(".")} == {".lock"}


@pytest.fixture(scope="module")
def encode():
    from t2i.data.features import Features
    from t2i.encoders.clip import load_clip
    from t2i.encoders.text import load_text_encoder

    return Features(load_text_encoder("scenes-clip"), load_clip("scenes-clip"))


def test_features_are_the_same_bytes_whatever_the_workers_and_the_stops(tmp_path, encode):
    write_set(tmp_path, {i: noise(40, 30, i) for i in range(36)} | {7: b"", 36: None})
    given = {"per_shard": 20, "clip": encode.fingerprint, "max_bad": 1}
    for workers in (1, 2):
        make(tmp_path, tmp_path / str(workers), workers=workers, encode=encode, **given)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")

    class Stopped:
        """The encoder, until someone presses Ctrl-C."""

        device, calls = encode.device, 0

        def __call__(self, *arguments):
            self.calls += 1
            if self.calls > 2:  # in the second shard: the first one is chunks of 16 and 4
                raise KeyboardInterrupt
            return encode(*arguments)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tmp_path / "stopped", encode=Stopped(), **given)
    assert [p.name for p in (tmp_path / "stopped").glob("*.tar")] == ["shard-000000.tar"]
    make(tmp_path, tmp_path / "stopped", encode=encode, **given)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "1")

    with tarfile.open(tmp_path / "1" / "shard-000000.tar") as tar:
        members = {f"000000000000.{e}" for e in ("jpg", "clip_image.npy", "clip_text.npy", "json")}
        assert set(tar.getnames()[:4]) == members
        for name in ("clip_image", "clip_text"):  # two ways round, two captions
            value = np.load(io.BytesIO(tar.extractfile(f"000000000003.{name}.npy").read()))
            assert (value.shape, value.dtype) == ((2, encode.clip.dim), np.float16)
            assert np.linalg.norm(value.astype(float), axis=1) == pytest.approx(1, abs=2e-3)
    manifest = json.loads((tmp_path / "1" / "manifest.json").read_text())
    assert {r["clip"] for r in manifest["shards"]} == {manifest["options"]["clip"]} == {encode.fingerprint}


def test_features_by_the_command(tmp_path, run, encode):
    out = tmp_path / "scenes"
    given = ("scenes", "--out", out, "--count", 3, "--size", 16, "--workers", 1)
    assert run(*given, "--clip", "scenes-clip")[0] == 0
    assert json.loads((out / "manifest.json").read_text())["options"]["clip"] == encode.fingerprint
    assert f"clip {encode.fingerprint} there, none asked for" in run(*given)[2]
    status, _, error = run(*given, "--clip", "scene-clip")
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("error: --clip scene-clip: ")


def test_report_lists_what_is_left_out(tmp_path):
    jpeg = io.BytesIO()
    noise(64, 48).save(jpeg, "JPEG")
    whole = jpeg.getvalue()
    good: dict = {i: noise(20, 20, i) for i in range(100, 110)}
    bad = {1: None, 2: b"", 3: whole[: len(whole) // 2], 4: b"<html>not found</html>", 5: whole[:200]}
    write_set(tmp_path, good | bad)
    path = tmp_path / "captions.json"
    given = json.loads(path.read_text())
    given["images"] += [{"id": 6, "file_name": "6.jpg"}, given["images"][0]]  # one without captions, one repeated
    given["annotations"].append({"id": 9999, "image_id": 777, "caption": "of no picture"})
    path.write_text(json.dumps(given))
    manifest = make(tmp_path, tmp_path / "out", max_bad=0.5)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    kinds = {p["image_id"]: p["kind"] for p in report["problems"]}
    assert kinds.pop(5) in ("truncated", "undecodable")
    assert kinds == {1: "missing", 2: "empty", 3: "truncated", 4: "undecodable", 6: "no_captions"}
    assert all(p["file"] == f"{p['image_id']}.jpg" and p["reason"] for p in report["problems"])
    assert (report["pictures"], report["bad"], sum(report["counts"].values())) == (16, 6, 6)
    assert report["annotations_without_picture"] == [{"id": 9999, "image_id": 777}]
    assert report["repeated_entries"] == {"images": 1, "annotations": 0}
    assert sorted(samples(tmp_path / "out")) == sorted(good)
    assert (manifest["samples"], manifest["bad"]) == (10, 6)


def test_too_many_bad_pictures_fail(tmp_path):
    pictures: dict = {i: noise(20, 20, i) for i in range(8)}
    write_set(tmp_path, pictures | {8: b"broken", 9: b""})
    make(tmp_path, tmp_path / "enough", max_bad=0.2)
    message = r"^--max-bad 0\.19: 2 of 10 .*\(1 empty, 1 undecodable\).*report\.json"
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path, tmp_path / "out", max_bad=0.19)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bad"] == 2
    # What was finished counts once the limit is raised, and missing pictures are noticed before any work.
    assert contents_of_tars(tmp_path / "out") == contents_of_tars(tmp_path / "enough")
    make(tmp_path, tmp_path / "out", max_bad=0.2)
    assert contents(tmp_path / "out") == contents(tmp_path / "enough")
    (tmp_path / "images" / "0.jpg").unlink()
    with pytest.raises(UserError, match="1 missing"):
        make(tmp_path, tmp_path / "fresh", max_bad=0.0)
    assert not list((tmp_path / "fresh").glob("*.tar"))


def contents_of_tars(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name.endswith(".tar")}


def test_repaired_pictures_are_noticed(tmp_path):
    """The same command after fetching what was missing makes that shard again, and no other."""
    write_set(tmp_path, {i: noise(20, 20, i) for i in range(8)} | {3: None})
    out = tmp_path / "out"
    make(tmp_path, out, max_bad=1)
    times = [os.stat(out / shard_name(i)).st_mtime_ns for i in range(2)]
    noise(20, 20, 3).save(tmp_path / "images" / "3.jpg")
    assert make(tmp_path, out, max_bad=1)["samples"] == 8
    after = [os.stat(out / shard_name(i)).st_mtime_ns for i in range(2)]
    assert after[0] != times[0]
    assert after[1] == times[1]
    write_set(tmp_path / "again", {i: noise(20, 20, i) for i in range(8)})
    make(tmp_path / "again", tmp_path / "again" / "out")
    assert contents_of_tars(out) == contents_of_tars(tmp_path / "again" / "out")


def test_other_options_need_another_folder(tmp_path):
    write_set(tmp_path, {i: noise(20, 20, i) for i in range(8)})
    out = tmp_path / "out"
    make(tmp_path, out)
    with pytest.raises(UserError, match=r"size 16 there, 8 asked for.*--overwrite"):
        make(tmp_path, out, size=8)
    with pytest.raises(UserError, match="holds other shards"):
        make(tmp_path, out, source={"kind": "coco", "annotations": "another"})
    make(tmp_path, out, size=8, per_shard=8, overwrite=True)
    assert len(list(out.glob("*.tar"))) == 1
    assert samples(out)[0][0].size == (8, 8)
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match="without a manifest"):
        make(tmp_path, out)


CAPTION = {"id": 1, "image_id": 1, "caption": "a"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as COCO JSON"),
        ("[]", "cannot be read as COCO JSON"),
        ('{"images": 3}', "cannot be read as COCO JSON"),
        ("{}", "no images"),
        (json.dumps({"images": [{"file_name": "1.jpg"}], "annotations": [CAPTION]}), "no 'id'"),
        (json.dumps({"images": [{"id": 1}], "annotations": [CAPTION]}), "file_name"),
        (json.dumps({"images": [{"id": "x", "file_name": "1.jpg"}], "annotations": []}), "whole number"),
        (
            json.dumps({
                "images": [{"id": 1, "file_name": "1.jpg"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
                "categories": [{"id": 1, "name": "person"}],
            }),
            "not captions",
        ),
    ],
)  # fmt: skip
def test_wrong_annotation_files(tmp_path, text, message):
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        coco.read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_mistakes_on_the_command_line(tmp_path, run):
    images, annotations = write_set(tmp_path, {i: noise(20, 20, i) for i in range(3)})
    out = tmp_path / "out"

    def error(*arguments: object) -> str:
        status, _, text = run(*arguments, "--out", out)
        assert status == 2
        assert text.startswith("error: ")
        assert text.count("\n") == 1
        return text

    assert "no such folder" in error("coco", "--images", tmp_path / "no", "--annotations", annotations)
    given = ("coco", "--images", images, "--annotations", annotations)
    for option, value in {"--size": 0, "--fit": "stretch", "--per-shard": 0, "--quality": 101, "--limit": -1}.items():
        assert f"{option} {value}: " in error(*given, option, value)
    assert "--max-bad 2.0" in error(*given, "--max-bad", 2)
    assert "--workers 0" in error(*given, "--workers", 0)
    assert "no picture of the annotations" in error("coco", "--images", tmp_path, "--annotations", annotations)
    assert "No such file" in error("coco", "--images", images, "--annotations", tmp_path / "no.json")
    assert "--held-out 'red'" in error("scenes", "--count", 3, "--held-out", "red")
    assert "--count 0" in error("scenes", "--count", 0)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, str(out / ".lock")], **pipes) as other:
        other.stdout.readline()
        assert "another make_shards writes there" in error(*given)
        other.communicate(b"\n")


def test_disk_full_leaves_finished_shards(tmp_path, run):
    images, annotations = write_set(
        tmp_path, {i: noise(40, 40, i) for i in range(4)} | {i: noise(300, 300, i) for i in range(4, 8)}
    )
    given = ("coco", "--images", images, "--annotations", annotations, "--out", tmp_path / "out", "--size", 200)
    given = (*given, "--per-shard", 2, "--workers", 1)

    def limited() -> None:  # files of this process cannot grow further: the system's answer to a full disk, nearly
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))

    done = subprocess.run(command(*given), capture_output=True, text=True, check=False, preexec_fn=limited)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: --out")
    assert "disk is full" in last
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr  # Python's word for what fails while an object is thrown away
    out = tmp_path / "out"
    assert sorted(p.name for p in out.glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]
    assert not list(out.glob(".*.tmp"))
    assert run(*given)[0] == 0
    assert sorted(samples(out)) == list(range(8))


def test_scenes_are_made_once_and_their_truth_is_kept(tmp_path, run):
    out = tmp_path / "scenes"
    given = ("scenes", "--out", out, "--count", 6, "--size", 16, "--workers", 1)
    assert run(*given, "--seed", 3)[0] == 0
    found = samples(out)
    assert sorted(found) == list(range(6))
    for image, meta in found.values():
        assert image.size == (16, 16)
        assert len(meta["captions"]) == 5
        assert meta["attributes"]["objects"]
    assert not list(tmp_path.glob(".scenes*"))  # the drawings are gone
    status, _, text = run(*given, "--seed", 3)
    assert status == 0
    assert "scene/s" not in text  # nothing was drawn again
    assert "seed 3 there, 4 asked for" in run(*given, "--seed", 4)[2]


def test_two_drawings_to_one_folder_do_not_disturb_each_other(tmp_path):
    command = [sys.executable, str(SCRIPT), "scenes", "--out", str(tmp_path / "out"), "--count", "300", "--size", "16"]
    both = [
        subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert "Traceback" not in "".join(said)
    assert codes in ([0, 0], [0, 2]), said
    if codes == [0, 2]:
        assert any("another make_shards" in text for text in said)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["samples"] == 300
    assert not (tmp_path / ".out.drawn").exists()


POOL = """
import os, sys, time
from pathlib import Path
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from t2i.files import end_with_parent

def pid(n):
    time.sleep(0.05)
    return os.getpid()

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        print(*set(pool.map(pid, range(8))), flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signal at a parent's death")
def test_processes_that_draw_end_with_the_command_that_was_killed(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    main = subprocess.Popen([sys.executable, str(tmp_path / "pool.py")], stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in main.stdout.readline().split()]
    assert workers
    main.kill()
    main.wait()
    main.stdout.close()
    time.sleep(0.3)
    alive = [pid for pid in workers if Path(f"/proc/{pid}/status").exists()]
    assert not [pid for pid in alive if "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()]
