"""What a training leaves goes on, whatever became of it: killed, damaged, resumed with other settings."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import conftest
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_train import arguments, launch, metrics, run_here, weights  # noqa: F401

from t2i import checkpoint
from t2i.errors import UserError

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def states(folder):
    return torch.load(checkpoint.folders(folder)[-1] / "state.pt", weights_only=True)


def terms(folder):
    """The lines of the log, but for what the clock decides."""
    clock = {"images_per_second", "seconds_per_kimg", "memory_gb"}
    return [{k: v for k, v in line.items() if k not in clock} for line in metrics(folder)]


def test_the_log_is_the_same_after_a_resume_at_any_step(arguments, monkeypatch):  # noqa: F811
    more = ("log.every=3", "loss.path_length.weight=0")
    whole = run_here(arguments, monkeypatch, "name=whole", "train.kimg=0.036", *more)
    for kimg in (0.008, 0.016, 0.036):
        parts = run_here(arguments, monkeypatch, "name=parts", f"train.kimg={kimg}", *more)
    assert [line["step"] for line in metrics(whole)] == [3, 6, 9]
    assert terms(parts) == terms(whole)


def test_a_log_is_rewritten_whole_or_not_at_all(arguments, monkeypatch):  # noqa: F811
    folder = run_here(arguments, monkeypatch, "train.kimg=0.012")
    before = (folder / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_here(arguments, monkeypatch, "train.kimg=0.016")
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_tensorboard_keeps_the_point_at_the_checkpoint(arguments, monkeypatch):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for kimg in (0.008, 0.016):
        folder = run_here(arguments, monkeypatch, f"train.kimg={kimg}")
        time.sleep(0.01)
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert [point.step for point in board.Scalars("G/adversarial")] == [4, 8, 12, 16]


def test_the_snapshots_prompts_are_the_same_after_a_resume(arguments, monkeypatch):  # noqa: F811
    from t2i.log import Log

    seen, snapshot = [], Log.snapshot
    monkeypatch.setattr(Log, "snapshot", lambda self, run: (seen.append(list(self.prompts)), snapshot(self, run))[1])
    for kimg in (0.012, 0.024):
        run_here(arguments, monkeypatch, f"train.kimg={kimg}", "log.snapshot_kimg=0")
    assert len(seen) == 2
    assert seen[0] == seen[1]


ORPHANS = """
import os, sys, time
import torch
from t2i.data.workers import compute_ahead

class Slow(torch.utils.data.Dataset):
    def __getitem__(self, n):
        return os.getpid()

ahead = compute_ahead(Slow(), iter(range(10**9)), 2, "data.workers")
print(*{next(ahead) for _ in range(8)}, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signal at a parent's death")
def test_workers_end_with_the_training_that_was_killed():
    main = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in main.stdout.readline().split()]
    assert workers
    main.kill()
    main.wait()
    time.sleep(0.3)
    main.stdout.close()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists() and not zombie(pid)]


def zombie(pid):
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


# ---- damaged checkpoints


@pytest.fixture(scope="module")
def trained(tiny_shards, tmp_path_factory):
    """A run with two checkpoints, and the arguments that continue it."""
    root = tmp_path_factory.mktemp("trained")
    given = [
        str(Path(__file__).parents[1] / "configs" / "scenes.yaml"), *conftest.TINY, "train.batch=4", "log.every=1",
        "log.grid=1", "log.snapshot_kimg=0", "data.workers=0", f"data.shards={tiny_shards}", f"runs={root}",
        "loss.img_txt_clip.weight=0",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        folder = run_here(given, patch, "train.kimg=0.008", "log.checkpoint_kimg=0.004")
    assert len(checkpoint.folders(folder)) == 2
    return given, folder


def damage(folder: Path, at: float, how: str) -> None:
    data = bytearray((folder / "state.pt").read_bytes())
    place = int(at * (len(data) - 1))
    if how == "cut":
        data = data[:place]
    elif how == "flip":
        data[place] ^= 0x55
    else:
        data[place : place + 64] = bytes(64)
    (folder / "state.pt").write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "flip"])
def test_a_damaged_checkpoint_is_passed_over(how, trained, tmp_path, monkeypatch, caplog):
    given, folder = trained
    shutil.copytree(folder, tmp_path / "scenes")
    _, last = checkpoint.folders(tmp_path / "scenes")
    damage(last, 0.5, how)
    run_here([*given, f"runs={tmp_path}"], monkeypatch, "train.kimg=0.012")
    assert "going on from the checkpoint before it" in caplog.text
    assert "undo the change" not in caplog.text
    assert [line["step"] for line in metrics(tmp_path / "scenes")] == [1, 2, 3]
    names = ["000000001", "000000003", "damaged-000000002"]
    assert sorted(p.name for p in (tmp_path / "scenes" / "checkpoints").iterdir()) == names
    for kept in checkpoint.folders(tmp_path / "scenes"):
        damage(kept, 0.5, how)
    with pytest.raises(UserError, match=r"no older checkpoint .* is whole"):
        run_here([*given, f"runs={tmp_path}"], monkeypatch, "train.kimg=0.016")


@FEW
@given(at=st.floats(0, 1), how=st.sampled_from(["cut", "flip", "zero"]), signed=st.booleans())
def test_no_damage_to_a_state_is_a_traceback(trained, tmp_path_factory, at, how, signed):
    """signed: whoever made it wrong has made its digest right."""
    folder = tmp_path_factory.mktemp("state")
    shutil.copytree(checkpoint.folders(trained[1])[-1], folder, dirs_exist_ok=True)
    damage(folder, at, how)
    if signed:
        description = json.loads((folder / "model.json").read_text()) | {"sha256": {}}
        (folder / "model.json").write_text(json.dumps(description))
        try:
            checkpoint.read(folder)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
    else:
        original = (checkpoint.folders(trained[1])[-1] / "state.pt").read_bytes()
        if (folder / "state.pt").read_bytes() != original:
            with pytest.raises(UserError, match="SHA-256"):
                checkpoint.read(folder)


@FEW
@given(
    key=st.sampled_from([*checkpoint.KINDS]),
    value=st.sampled_from(
        [None, -1, 2**70, 1e400, "x", [], {}, [None], {"state": 1}, {1: 2}, torch.zeros(2), {"a": torch.ones(3)},
         {"state": {0: {"step": 1}}, "param_groups": [{"params": [0]}]}, {"path_length": {"mean": "x"}}],
    ),
)  # fmt: skip
def test_no_crafted_state_is_a_traceback(trained, tmp_path_factory, key, value):
    given_, run_folder = trained
    folder = tmp_path_factory.mktemp("crafted")
    shutil.copytree(checkpoint.folders(run_folder)[-1], folder, dirs_exist_ok=True)
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save(state | {key: value}, folder / "state.pt")
    description = json.loads((folder / "model.json").read_text()) | {"sha256": {}}
    (folder / "model.json").write_text(json.dumps(description))
    run = conftest.build_here(*given_[1 + len(conftest.TINY) :], "loss.img_txt_clip.weight=0")
    try:
        checkpoint.load(run, folder)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_state_with_weights_that_are_no_numbers_names_them(trained, tmp_path):
    folder = shutil.copytree(checkpoint.folders(trained[1])[-1], tmp_path / "c")
    state = torch.load(folder / "state.pt", weights_only=True)
    name = next(k for k in state["D"] if k.endswith("weight"))
    state["D"][name].view(-1)[0] = float("nan")
    torch.save(state, folder / "state.pt")
    (folder / "model.json").write_text(json.dumps(json.loads((folder / "model.json").read_text()) | {"sha256": {}}))
    with pytest.raises(UserError, match=rf"D\.{name} is not finite"):
        checkpoint.read(folder)


# ---- resumed with other settings


def resumed(trained, tmp_path, monkeypatch, *more, kimg=0.012):
    """The run, continued in a copy of its folder."""
    given_, folder = trained
    if not (tmp_path / "scenes").exists():
        shutil.copytree(folder, tmp_path / "scenes")
    return run_here([*given_, f"runs={tmp_path}"], monkeypatch, f"train.kimg={kimg}", *more)


def test_changed_augmentation_takes_effect(trained, tmp_path, monkeypatch, caplog):
    p = lambda folder: metrics(folder)[-1]["ada_p"]
    slow = ("ada.speed_kimg=1e9",)
    assert p(resumed(trained, tmp_path, monkeypatch, "ada.mode=ada", "ada.p=0.5", *slow)) == pytest.approx(0.5)
    assert p(resumed(trained, tmp_path, monkeypatch, "ada.mode=ada", "ada.p=0.2", *slow, kimg=0.016)) == pytest.approx(
        0.2
    )
    assert "ada.p=0.2 from here on" in caplog.text
    assert p(resumed(trained, tmp_path, monkeypatch, "ada.mode=off", kimg=0.02)) == 0


def test_memory_layout_may_change(trained, tmp_path, monkeypatch):
    """A step after a resume is the same whichever way weights lie in memory."""
    one = resumed(trained, tmp_path / "a", monkeypatch, "train.channels_last=true", "train.precision=fp32")
    two = resumed(trained, tmp_path / "b", monkeypatch, "train.channels_last=false", "train.precision=fp32")
    before, a, b = states(trained[1])["G"], states(one)["G"], states(two)["G"]
    moved = max(float((a[k] - before[k]).abs().max()) for k in a if k in before)
    assert moved > 1e-4
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < moved / 100


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["loss.word_region.weight=1"], ["loss.word_region.weight=0"]),
        ([], ["loss.word_region.weight=1"]),
        (["loss.img_txt_d.learnable=true"], ["loss.img_txt_d.weight=0"]),
        (["loss.img_txt_d.learnable=true"], ["loss.img_txt_d.learnable=false"]),
        (["loss.img_txt_d.weight=0"], ["loss.img_txt_d.weight=1", "loss.img_txt_d.learnable=true"]),
        ([], ["loss.adversarial.weight=0"]),
        ([], ["ada.mode=ada", "loss.r1.weight=0"]),
    ],
)
def test_losses_may_come_and_go(first, then, trained, tmp_path, monkeypatch, caplog):
    given_ = [*trained[0], f"runs={tmp_path}"]
    folder = run_here(given_, monkeypatch, "train.kimg=0.008", *first)
    before = states(folder)["D"]
    folder = run_here(given_, monkeypatch, "train.kimg=0.012", *then)
    after = states(folder)
    assert after["step"] == 3
    common = [k for k in before if k in after["D"] and before[k].is_floating_point() and before[k].numel() > 8]
    assert any(not torch.equal(before[k], after["D"][k]) for k in common)
    assert max(float((before[k] - after["D"][k]).abs().max()) for k in common) < 0.1, "it went on, and not anew"
    if "word_region" in " ".join(first + then):
        assert "D.regions is left behind" in caplog.text or "D.regions begins anew" in caplog.text


def test_another_network_is_refused_and_says_so(trained, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not fit this configuration"):
        resumed(trained, tmp_path, monkeypatch, "generator.style_dim=12")
    with pytest.raises(UserError, match="does not fit this configuration"):
        resumed(trained, tmp_path, monkeypatch, "discriminator.architecture=orig")
    with pytest.raises(UserError, match="does not fit this configuration"):
        resumed(trained, tmp_path, monkeypatch, "generator.mapping_layers=2")


def test_half_precision_may_begin_at_any_time(trained):
    run = conftest.build_here(*trained[0][1 + len(conftest.TINY) :])
    folder = checkpoint.folders(trained[1])[-1]
    run.scaler = torch.amp.GradScaler("cuda", enabled=True) if torch.cuda.is_available() else Scaler()
    checkpoint.load(run, folder)
    assert run.step == 2


class Scaler(torch.amp.GradScaler):
    """One that is enabled where there is no GPU, to be given a state."""

    def __init__(self):
        super().__init__("cpu", enabled=True)
