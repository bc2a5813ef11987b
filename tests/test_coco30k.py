"""COCO-30k's captions: made from the annotations by a rule that stands in words, and checked by their ids."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from t2i.errors import UserError
from t2i.metrics.captions import coco30k, ids_digest, read_captions

ROOT = Path(__file__).parents[1]
FULL = ROOT.parent / "shared" / "data" / "coco-sample" / "annotations" / "captions_val2017_full.json"


def command(*arguments):
    spec = importlib.util.spec_from_file_location("score_script", ROOT / "scripts" / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(a) for a in arguments])


@pytest.fixture
def annotations(tmp_path):
    """Pictures 1 to 9, of which 9 has no caption; ids of captions run against the order of the file."""
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(9, 0, -1)]
    captions = [
        {"id": 1000 * n - k, "image_id": n, "caption": f" picture {n},\n caption {k}"}
        for n in range(1, 9)
        for k in range(3)
    ]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"images": images, "annotations": captions}))
    return file


def test_the_list_is_what_the_rule_says(annotations):
    order = sorted(range(1, 9), key=lambda n: hashlib.sha256(f"coco30k {n}".encode()).hexdigest())
    found = coco30k(annotations)
    assert [c.image_id for c in found] == order != sorted(order)
    assert [c.id for c in found] == [1000 * n - 2 for n in order]  # the lowest, not the first of the file
    assert found[0].text == f"picture {order[0]}, caption 2"
    assert [c.image_id for c in coco30k(annotations, 3)] == order[:3]
    ids = "\n".join(str(1000 * n - 2) for n in order)
    assert ids_digest(found) == hashlib.sha256(ids.encode()).hexdigest()


def test_two_groups_can_check_that_they_have_the_same_list(annotations, tmp_path, capsys):
    saved = tmp_path / "new" / "coco30k.json"
    command("--preset", "coco30k", "--captions", annotations, "--save-captions", saved)
    printed = capsys.readouterr()
    whole = json.loads(saved.read_text())
    assert whole["annotation_ids_sha256"] in printed.out
    assert "has 8 captioned pictures" in printed.err
    assert read_captions(saved) == coco30k(annotations)


def test_a_model_draws_the_list_in_its_order(annotations, tmp_path):
    out = tmp_path / "a.json"
    ask = ("--checkpoint", "scenes-stylegan2", "--clip", "scenes-clip-score", "--metrics", "clip_score")
    command(*ask, "--preset", "coco30k", "--captions", annotations, "--device", "cpu", "--json", out)
    drawn = json.loads(out.with_suffix(".captions.json").read_text())
    assert [c["id"] for c in drawn["captions"]] == [c.id for c in coco30k(annotations)]
    assert drawn["annotation_ids_sha256"] == ids_digest(coco30k(annotations))


def test_what_is_no_preset_is_refused(annotations, tmp_path):
    for wrong, said in (
        (("--preset", "coco5k", "--captions", annotations), "known: coco30k"),
        (("--preset", "coco30k"), "it is of --captions ANNOTATIONS"),
        (("--preset", "coco30k", "--captions", annotations, "--pictures", tmp_path), "--save-captions wrote"),
        (("--captions", annotations, "--save-captions", tmp_path / "a.json"), "give --preset coco30k"),
        (("--captions", annotations, "--checkpoint", "scenes-stylegan2"), "--preset coco30k takes one of each"),
        (
            ("--preset", "coco30k", "--captions", tmp_path / "none.json", "--save-captions", "x.json"),
            "none.json: No such",
        ),
    ):
        with pytest.raises(UserError, match=said) as error:
            command(*wrong)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not FULL.is_file(), reason="needs coco-sample beside the checkout")
def test_of_cocos_own_annotations():
    """The 5,000 pictures of val2017: the figure that docs/scores.md publishes."""
    found = coco30k(FULL)
    assert len({c.image_id for c in found}) == len(found) == 5000
    assert ids_digest(found) in (ROOT / "docs" / "scores.md").read_text()
