"""Files from elsewhere are data: nothing that a model folder, a record or an ablation's results name runs or is
fetched, and what is damaged or made to harm is refused in one line."""

import json
import os
from pathlib import Path

import conftest
import pytest
import torch
from test_score import command

from t2i import build, config
from t2i.data.samples import Samples
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.metrics import sources
from t2i.model import load_model, save_model


def make(folder: Path, *settings: str, critic: bool = False) -> Path:
    """A model folder without training."""
    settings = config.load(None, [*conftest.TINY, *settings])
    dim = load_text_encoder("scenes-clip").dim
    generator = build.generator(settings, dim, 0)
    save_model(
        folder, generator.state_dict(), settings, dim, 1.0,
        discriminator_state=build.discriminator(settings, dim, 0).state_dict() if critic else None,
    )  # fmt: skip
    return folder


def change(folder: Path, key: str, value) -> None:
    """Sets a dotted key of a model folder's description."""
    file = folder / "model.json"
    whole = json.loads(file.read_text())
    *path, last = key.split(".")
    place = whole
    for name in path:
        place = place[name]
    place[last] = value
    file.write_text(json.dumps(whole))


def refused(call, *said: str) -> str:
    """The one line that a call ends with, which says all of these."""
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    for part in said:
        assert part in line, line
    return line


@pytest.fixture
def executed(tmp_path):
    """A command that leaves a mark, which must not be there at the end."""
    mark = tmp_path / "executed"
    yield f"pipe:touch {mark}"
    assert not mark.exists()


# ---- names of shards


@pytest.mark.parametrize("form", ["{}", "file:{}", "{{{},x}}", "nowhere::{}", "file://{}"])
def test_scoring_a_model_runs_nothing_that_it_names(form, executed, tiny_shards, tmp_path):
    folder = make(tmp_path / "m")
    change(folder, "config.data.shards", form.format(executed))
    assert sources.overlap(form.format(executed), sources.Reference(str(tiny_shards))) is None
    if form == "{}":
        out = command(
            "--checkpoint", folder, "--reference", tiny_shards, "--metrics", "swd", "--samples", 4, "--jackknife", 0,
            out=tmp_path / "scores.json",
        )  # fmt: skip
        assert out["leaked_reference_pictures"] is None
        assert any("leakage was not looked for" in note for note in out["notes"])


def test_no_address_that_a_model_names_is_asked(tiny_shards, monkeypatch):
    monkeypatch.setattr("t2i.files._ask", lambda *_: pytest.fail("asked"))
    for shards in ("http://127.0.0.1:9/x.tar", "s3://bucket/x", "HTTP://127.0.0.1:9/x.tar", "${HOME}/x.tar"):
        assert sources.overlap(shards, sources.Reference(str(tiny_shards))) is None


def test_braces_for_more_shards_than_there_can_be_are_refused_at_once():
    refused(lambda: Samples("shard-{0..9999999999}.tar"), "at most")
    refused(lambda: Samples("{0..99999}-{0..99999}.tar"), "at most")


@pytest.mark.parametrize(
    "shards",
    [[{"file": "../x.tar"}], [{"file": "/etc/x.tar"}], [{"file": 3}], [{"samples": 3}], 7, [{"file": "x", "samples": -5}],
     [{"file": "x", "samples": 1 << 70}], [{"file": "x", "samples": "9"}], [{"file": "x", "bytes": None}], ["x"]],
)  # fmt: skip
def test_a_manifest_names_files_beside_it(shards, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": shards}))
    refused(lambda: Samples(str(tmp_path)), "manifest.json: damaged")


# ---- results of an ablation


def test_a_stored_configuration_reads_nothing_besides(tmp_path):
    file = tmp_path / "config.yaml"
    os.environ["T2I_SECRET"] = "s"
    for text in ("name: ${oc.env:T2I_SECRET}\n", "base: other.yaml\n", "x: &a [1]\ny: *a\n", "- 1\n", "\t:", "\x00"):
        file.write_text(text)
        refused(lambda: config.read_stored(file))
    file.write_text(config.to_yaml(config.Config()))
    assert config.read_stored(file) == config.Config()
