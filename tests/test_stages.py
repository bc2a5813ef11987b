"""Growth and curricula: what a plan says by hand, its mistakes, and runs that grow, stop in a fade and go on."""

import json
import os
import signal
from collections import Counter

import pytest
import torch
import torch.multiprocessing as mp
from conftest import TINY, build_here
from test_parallel import free_port
from test_train import arguments, metrics, run_here  # noqa: F401

import t2i
from t2i import build, checkpoint, config, launch, loop, stages
from t2i import model as models
from t2i.errors import UserError
from t2i.interfaces import Batch, Stage
from t2i.step import follow_schedules, train_step

GROWING = (
    "stages=[{kimg: 0, resolution: 8}, {kimg: 0.016, fade_kimg: 0.024, resolution: 16, reset_optimizers: true, "
    "set: {train.batch: 8, optim.g.lr: 0.001}}, {kimg: 0.048, set: {loss.img_txt_clip.weight: 0}}]"
)


# ---- plans


def test_plan_by_hand():
    first, second, third = stages.plan(config.load(None, ["model.resolution=16", GROWING]))
    assert (first.start, first.fade, first.resolution, first.reset) == (0, 0, 8, False)
    assert (second.start, second.fade, second.resolution, second.reset) == (16, 24, 16, True)
    assert (third.start, third.fade, third.resolution, third.reset) == (48, 0, 16, False)
    assert [p.config.train.batch for p in (first, second, third)] == [32, 8, 8]  # and so it stays
    assert [p.config.optim.g.lr for p in (first, second, third)] == [0.0025, 0.001, 0.001]
    assert [p.config.loss["img_txt_clip"]["weight"] for p in (first, second, third)] == [1, 1, 0]
    assert third.config.loss["img_txt_clip"]["temperature"] == 0.1
    assert not third.config.stages


def test_a_run_without_stages_is_one_part():
    c = config.load()
    (part,) = stages.plan(c)
    assert part == stages.Planned(0, 0, 64, False, c)
    assert stages.resolutions(c) == ()
    assert stages.number([part], 10**9) == 0
    assert stages.stage(part, 10**9) == Stage(64)


def test_a_curriculum_may_begin_later():
    c = config.load(None, ["stages=[{kimg: 2, reset_optimizers: true, set: {train.batch: 64}}]"])
    before, after = stages.plan(c)
    assert before == stages.Planned(0, 0, 64, False, c)
    assert (after.start, after.reset, after.config.train.batch) == (2000, True, 64)
    assert stages.resolutions(c) == ()


def test_stages_by_hand():
    c = config.load(None, ["model.resolution=16", GROWING])
    parts = stages.plan(c)
    assert stages.resolutions(c) == (8, 16)
    seen = (0, 15, 16, 17, 39, 47, 48, 10**6)
    assert [stages.number(parts, n) for n in seen] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert stages.stage(parts[0], 12) == Stage(8)
    assert [stages.stage(parts[1], n) for n in (16, 22, 39, 40, 47)] == [
        Stage(16, 0.0), Stage(16, 0.25), Stage(16, 23 / 24), Stage(16), Stage(16),
    ]  # fmt: skip
    assert stages.stage(parts[2], 48) == Stage(16)


def test_a_plan_is_written_down_and_read_back(tmp_path):
    c = config.load(None, ["model.resolution=16", GROWING])
    (tmp_path / "config.yaml").write_text(config.to_yaml(c))
    assert config.load(tmp_path / "config.yaml") == c
    assert stages.plan(config.from_dict(json.loads(json.dumps(config.dataclasses.asdict(c))))) == stages.plan(c)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{kimg: 0, resolution: 4}, {kimg: 1, fade_kimg: 1, resolution: 16}", "fades from half its resolution"),
        ("{kimg: 0, resolution: 16}, {kimg: 1, fade_kimg: 1}", "fades from half its resolution"),
        ("{kimg: 0, fade_kimg: 1, resolution: 16}", "fades from half its resolution"),
        ("{kimg: 1, resolution: 8}, {kimg: 2, resolution: 16}", "stages[0].kimg=1.0: growth begins at 0"),
        (
            "{kimg: 0}, {kimg: 1, resolution: 8}, {kimg: 2, resolution: 16}",
            "stages[0].resolution=0: growth begins",
        ),
        ("{kimg: 0, resolution: 8}", "growth must end at model.resolution=16"),
        ("{kimg: 0, resolution: 16}, {kimg: 3, resolution: 8}", "pictures grow; the stage before has 16"),
        ("{kimg: 0, resolution: 12}, {kimg: 4, resolution: 16}", "stages[0].resolution=12: a power of two"),
        ("{kimg: 0, resolution: 32}", "stages[0].resolution=32: a power of two from 4 to model.resolution=16"),
        ("{kimg: 3}, {kimg: 2}", "stages[1].kimg=2.0: must come after the stage before and its fade"),
        (
            "{kimg: 0, resolution: 8}, {kimg: 1, fade_kimg: 5, resolution: 16}, {kimg: 4}",
            "stages[2].kimg=4.0: must come after the stage before and its fade",
        ),
        ("{kimg: -1}", "0 or more"),
        ("{kimg: .nan}", "0 or more"),
        ("{kimg: soon}", "'soon'"),
        ("{kimg: 3, sets: {train.batch: 8}}", "did you mean 'set'"),
        ("{kimg: 3, set: [train.batch]}", "a list stands where"),
        ("{kimg: 3, set: {model.width: 0.5}}", "stages[0].set.model.width: only optim., loss., "),
        ("{kimg: 3, set: {seed: 1}}", "stages[0].set.seed: only "),
        ("{kimg: 3, set: {train.batches: 8}}", "stages[0].set: unknown key 'train.batches'"),
        ("{kimg: 3, set: {train.batch: 0}}", "stages[0].set: train.batch=0: must be above 0"),
        ("{kimg: 3, set: {train.accumulate: 3}}", "stages[0].set: train.batch=32: must be a multiple"),
        ("{kimg: 3, set: {optim.g.lr.x: 1}}", "stages[0].set: optim.g.lr.x: no such setting; optim.g.lr is a value"),
        ("{kimg: 3, set: {optim.q.lr: 1}}", "stages[0].set: unknown key 'optim.q'"),
    ],
)
def test_a_mistake_in_a_stage_is_one_line(given, said):
    with pytest.raises(UserError) as error:
        config.load(None, ["model.resolution=16", f"stages=[{given}]"])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_networks_that_do_not_grow_are_refused():
    grows = "stages=[{kimg: 0, resolution: 8}, {kimg: 1, resolution: 16}]"
    with pytest.raises(UserError, match=r"generator\.name=stylegan3: does not grow; leave resolution out of stages"):
        config.load(None, ["model.resolution=16", "generator.name=stylegan3", grows])
    assert config.load(None, ["generator.name=stylegan3", "stages=[{kimg: 1, set: {optim.g.lr: 0.001}}]"])


def test_a_loss_that_a_stage_sets_is_checked_at_the_start():
    for given, said in (("loss.img_img_vg.weight: 1", "did you mean 'img_img_vgg'"), ("loss.r1.gama: 1", "gamma")):
        with pytest.raises(UserError, match=said):
            build_here(f"stages=[{{kimg: 1, set: {{{given}}}}}]")


def test_what_any_stage_needs_is_there_from_the_start():
    """Networks, heads, temperatures and guides: so that nothing changes its shape on the way."""
    run = build_here("stages=[{kimg: 1, set: {loss.img_img_vgg.weight: 1, loss.word_region.weight: 1}}]")
    assert run.encoders.keys() == {"clip", "vgg"}
    assert hasattr(run.D, "regions")
    assert [t.name for t in run.objective.generator] == ["adversarial", "img_txt_d", "img_txt_clip"]
    run.images = 1000
    assert run.advance()
    assert [t.name for t in run.objective.generator][-2:] == ["img_img_vgg", "word_region"]
    assert not run.advance()


def test_optimisers_begin_anew_where_the_plan_says_so():
    run = build_here("stages=[{kimg: 1}, {kimg: 2, reset_optimizers: true}]", "train.batch=4")
    batch = Batch(torch.zeros(4, 3, 16, 16), ["a red bus"] * 4, torch.arange(4))
    train_step([batch], run)
    kept = len(run.g_optimizer.state)
    assert kept > 0
    for images, expected in ((1000, kept), (2000, 0)):
        run.images = images
        assert run.advance()
        assert len(run.g_optimizer.state) == expected
        assert (len(run.d_optimizer.state) > 0) == (expected > 0)


def test_adams_numbers_are_those_of_the_stage():
    changed = "optim.g.lr: 0.5, optim.g.beta1: 0.25, optim.g.beta2: 0.75, optim.g.eps: 0.125"
    run = build_here(f"stages=[{{kimg: 1, set: {{{changed}}}}}]")
    run.images = 1000
    assert run.advance()
    follow_schedules(run)
    (group,) = run.g_optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.25, 0.75), 0.125)


# ---- runs


def state(folder):
    return torch.load(checkpoint.folders(folder)[-1] / "state.pt", weights_only=True)


def assert_same(one, other):
    """Two states of a run, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key != "random":  # of the libraries, which whoever else runs in this process draws from
                assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_same(a, b)
    else:
        assert one == other


@pytest.fixture
def growing(arguments):  # noqa: F811
    return [*arguments, GROWING, "log.checkpoint_kimg=1000", "log.snapshot_kimg=0.024", "data.workers=1"]


def test_a_run_grows(growing, monkeypatch):
    shown = []

    def noting(batches, run):
        shown.append((run.images, len(batches[0]), run.stage))
        return train_step(batches, run)

    monkeypatch.setattr(loop, "train_step", noting)
    folder = run_here(growing, monkeypatch, "train.kimg=0.056")
    assert [images for images, *_ in shown] == [0, 4, 8, 12, 16, 24, 32, 40, 48]
    assert [count for _, count, _ in shown] == [4] * 4 + [8] * 5
    assert [(s.resolution, s.alpha) for *_, s in shown] == (
        [(8, 1.0)] * 4 + [(16, 0.0), (16, 1 / 3), (16, 2 / 3), (16, 1.0), (16, 1.0)]
    )
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert ["G/img_txt_clip" in line for line in lines] == [True] * 8 + [False]
    last = state(folder)
    assert last["part"] == 2
    # Reset at 16 pictures: of nine steps five are remembered, and three of the entrance of 8×8, which fades out.
    g, d = (Counter(int(s["step"]) for s in last[f"{n}_optimizer"]["state"].values()) for n in "gd")
    assert g.keys() == {5}
    assert d.keys() == {3, 5}
    assert d[3] == 2  # weight and bias
    assert last["g_optimizer"]["param_groups"][0]["lr"] == 0.001
    model = t2i.load(folder)
    assert model.stage == Stage(16)
    assert model("a red bus").shape == (1, 3, 16, 16)


def test_asked_to_stop_in_a_fade_it_resumes_bit_for_bit(growing, monkeypatch):
    whole = run_here(growing, monkeypatch, "name=whole", "train.kimg=0.056")

    def terminating(batches, run):
        terms = train_step(batches, run)
        if run.images == 24:
            os.kill(os.getpid(), signal.SIGTERM)
        return terms

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", terminating)
        parts = run_here(growing, monkeypatch, "name=parts", "train.kimg=0.056")
    (stopped,) = checkpoint.folders(parts)
    description = json.loads((stopped / "model.json").read_text())
    assert description["stage"] == {"resolution": 16, "alpha": 1 / 3}
    run_here(growing, monkeypatch, "name=parts", "train.kimg=0.056")
    assert_same(state(whole), state(parts))
    assert [line["step"] for line in metrics(parts)] == list(range(1, 10))


@pytest.mark.parametrize("died", [16, 32, 40], ids=["in the first step of a fade", "in a fade", "behind it"])
def test_killed_it_resumes_bit_for_bit_from_its_last_checkpoint(died, growing, monkeypatch):
    class Killed(BaseException):
        pass

    def dying(batches, run):
        if run.images == died:
            raise Killed
        return train_step(batches, run)

    settings = ["train.kimg=0.056", "log.checkpoint_kimg=0.016"]
    whole = run_here(growing, monkeypatch, "name=whole", *settings)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", dying)
        with pytest.raises(Killed):
            run_here(growing, monkeypatch, "name=parts", *settings)
    parts = run_here(growing, monkeypatch, "name=parts", *settings)
    assert_same(state(whole), state(parts))


def test_a_model_from_the_middle_of_a_fade_draws_at_its_stage(growing, monkeypatch):
    folder = run_here(growing, monkeypatch, "train.kimg=0.024")
    model = t2i.load(folder)
    assert model.stage == Stage(16, 1 / 3)
    assert model.resolution == 16
    picture = model("a red bus", seed=3)
    assert picture.shape == (1, 3, 16, 16)
    model.stage = Stage(16)
    assert not torch.equal(model("a red bus", seed=3), picture)
    begun = run_here(growing, monkeypatch, "name=begun", "train.kimg=0.008")
    small = t2i.load(begun)
    assert small.stage == Stage(8)
    assert small.resolution == 8
    assert small("a red bus").shape == (1, 3, 8, 8)
    judged = models.load_discriminator(small)(small("a red bus"), small.text_encoder(["a red bus"]))
    assert judged.logit.isfinite().all()


def test_a_plan_that_lost_its_stages_does_not_resume(growing, monkeypatch):
    run_here(growing, monkeypatch, "train.kimg=0.024")
    with pytest.raises(UserError) as error:
        run_here(growing, monkeypatch, "train.kimg=0.056", "stages=[]")
    assert "\n" not in str(error.value)


# ---- several processes

PROCESSES = [
    *TINY, "discriminator.mbstd_group=1", "train.batch=4", "generator.style_mixing=0.5", "optim.g.eps=0.01",
    "optim.d.eps=0.01", "stages=[{kimg: 0, resolution: 8}, {kimg: 0.008, fade_kimg: 0.016, resolution: 16, "
    "set: {train.batch: 8}}]",
]  # fmt: skip


def rows(images: int, count: int, rank: int, world: int) -> Batch:
    """This process's of the pictures from number `images` on."""
    numbers = range(images + rank, images + count, world)
    generators = [torch.Generator().manual_seed(n) for n in numbers]
    image = torch.stack([torch.rand(3, 16, 16, generator=g) * 2 - 1 for g in generators])
    colours = ("red", "blue", "green", "white", "black", "yellow")
    return Batch(image, [f"a {colours[n % 6]} bus no {n}" for n in numbers], torch.tensor(list(numbers)))


def trained() -> dict[str, torch.Tensor]:
    settings, place = launch.start(config.load(None, PROCESSES))
    run = build.build(settings, place.device, rank=place.rank, world=place.world)
    with torch.no_grad():
        for p in [*run.G.parameters(), *run.D.parameters()]:
            p.add_(0.01)  # exact zeros would hide gradients
    run.G_ema.load_state_dict(run.G.state_dict())
    while run.images < 40:
        run.advance()
        train_step([rows(run.images, run.config.train.batch, run.rank, run.world)], run)
    assert run.part == 1
    assert run.stage == Stage(16)
    networks = {"G": run.G, "D": run.D, "G_ema": run.G_ema}
    found = {f"{name}.{k}": v for name, network in networks.items() for k, v in network.state_dict().items()}
    for name, network, optimizer in (("g", run.G, run.g_optimizer), ("d", run.D, run.d_optimizer)):
        for key, p in network.named_parameters():
            step = optimizer.state[p]["step"] if p in optimizer.state else torch.zeros(())
            found[f"steps of {name} {key}"] = step.float().cpu()
    return {k: v.detach().clone() for k, v in found.items()}


def worker(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.save(trained(), f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_one_process_and_two_agree_across_a_stage(tmp_path, monkeypatch):
    """Layers that have not begun to fade in have no gradient on any process, and Adam counts no steps of theirs."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mp.start_processes(worker, (free_port(), str(tmp_path)), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    alone = trained()
    assert {int(v) for k, v in alone.items() if k.startswith("steps")} == {4, 6}  # in the second stage, in both
    wrong = {}
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), f"{key} differs between the processes"
        error = float((value - first[key]).abs().max() / value.abs().max().clamp(min=1e-3)) if value.numel() else 0.0
        if error > (0 if key.startswith("steps") else 1e-4):
            wrong[key] = error
    assert not wrong
