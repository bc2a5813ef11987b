"""What accelerate launch says: each of its environment variables, precision, threads, processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from t2i import config, launch, parallel
from t2i.errors import UserError


def settings(*overrides):
    return config.load(None, overrides)


# ---- the environment


def test_silence_changes_nothing():
    given = settings("train.precision=bf16", "train.accumulate=2")
    assert launch.heard(given, {}) == given
    quiet = {
        "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_USE_DEEPSPEED": "false", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2",
    }  # fmt: skip
    assert launch.heard(given, quiet) == given


@pytest.mark.parametrize("said", ["bf16", "fp16"])
def test_mixed_precision(said):
    environment = {"ACCELERATE_MIXED_PRECISION": said}
    assert launch.heard(settings(), environment).train.precision == said
    assert launch.heard(settings(f"train.precision={said}"), environment).train.precision == said
    with pytest.raises(UserError, match=rf"train\.precision=fp32: .*--mixed_precision {said} says otherwise"):
        launch.heard(settings("train.precision=fp32"), environment)


def test_gradient_accumulation():
    environment = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    assert launch.heard(settings(), environment).train.accumulate == 4
    assert launch.heard(settings("train.accumulate=4"), environment).train.accumulate == 4
    with pytest.raises(UserError, match=r"train\.accumulate=2: .*--gradient_accumulation_steps 4 says otherwise"):
        launch.heard(settings("train.accumulate=2"), environment)
    with pytest.raises(UserError, match=r"train\.batch=30: must be a multiple of train\.accumulate=4"):
        launch.heard(settings("train.batch=30"), environment)


@pytest.mark.parametrize("said", ["many", "auto", "-1", ""])
def test_rounds_that_are_no_number(said):
    with pytest.raises(UserError, match=f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={said}: a whole number"):
        launch.heard(settings(), {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": said})


def test_what_is_heard_holds_in_every_stage():
    from t2i import stages

    given = settings("stages=[{kimg: 1, set: {optim.g.lr: 0.001}}, {kimg: 2, set: {train.batch: 64}}]")
    environment = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16"}
    parts = [part.config.train for part in stages.plan(launch.heard(given, environment))]
    assert [(t.accumulate, t.precision, t.batch) for t in parts] == [(4, "bf16", b) for b in (32, 32, 64)]


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("ACCELERATE_USE_FSDP", "true", "--use_fsdp"),
        ("ACCELERATE_USE_DEEPSPEED", "True", "--use_deepspeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "--use_megatron_lm"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "--use_parallelism_config"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--dynamo_backend inductor"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "--mixed_precision fp8"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(variable, value, option):
    with pytest.raises(UserError, match=option) as error:
        launch.heard(settings(), {variable: value})
    assert "not supported" in str(error.value)
    assert "\n" not in str(error.value)


def test_all_that_is_refused_is_what_accelerate_sets():
    """Under the names that this version of accelerate launch gives its variables."""
    from accelerate.utils import launch as theirs

    source = Path(theirs.__file__).read_text()
    for variable in [*launch.REFUSED, "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_MIXED_PRECISION"]:
        assert variable.removeprefix("ACCELERATE_") in source, variable


# ---- processes


def test_every_stage_divides_among_the_processes(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(parallel, "world", lambda: 3)
    with pytest.raises(UserError, match=r"^train\.batch=32: must be a multiple of processes x .* 3 x 1"):
        launch.start(settings())
    grows = settings("train.batch=24", "stages=[{kimg: 2, set: {train.batch: 32}}]")
    with pytest.raises(UserError, match=r"train\.batch=32 from 2 kimg on: must be a multiple of processes x .* 3 x 1"):
        launch.start(grows)


def test_start_says_where_it_runs(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = settings("train.precision=bf16")
    heard, place = launch.start(given)
    assert heard == given
    assert place == launch.Launch(torch.device("cpu"), "bf16", 0, 1)


# ---- precision


def test_precision(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for asked in ("fp32", "bf16"):
        assert launch.precision(asked, cpu) == launch.precision(asked, cuda) == asked
    assert launch.precision("fp16", cuda) == "fp16"
    with pytest.raises(UserError, match=r"train\.precision=fp16: needs a CUDA device"):
        launch.precision("fp16", cpu)
    for avx, amx, expected in ((False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert launch.precision("auto", cpu) == expected
    for able in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert launch.precision("auto", cuda) == ("bf16" if able else "fp32")


# ---- threads


def test_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert [launch.threads(world) for world in (1, 3, 24)] == [12, 4, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of 24 processes two are here
    assert launch.threads(24) == 6
    for given, expected in (("5", 5), ("1", 1), ("0", 6), ("", 6), ("many", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert launch.threads(24) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize(("users", "expected"), [("", None), ("1", 1), ("3", 3)])
def test_the_threads_that_accelerate_sets_are_not_the_users(users, expected):
    """accelerate launch sets OMP_NUM_THREADS=1 for its processes, where the user said nothing."""
    process = "OMP_NUM_THREADS=1 ACCELERATE_MIXED_PRECISION=no"
    ask = f'{process} {sys.executable} -c "from t2i.launch import threads; print(threads(1))"; true'
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": users} if users else {}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    out = subprocess.run(["bash", "-c", ask], env=environment, capture_output=True, text=True, check=True).stdout
    assert int(out) == (expected or len(os.sched_getaffinity(0)))


def test_what_accelerate_does_not_pass_on_is_read_off_its_command_line(monkeypatch):
    for words in (["--gradient_accumulation_steps", "2"], ["--gradient_accumulation_steps=2"]):
        said = launch.unpassed(["accelerate", "launch", *words, "t2i/train.py", "train.batch=8"])
        assert launch.heard(config.load(None, ["train.batch=8"]), said).train.accumulate == 2
    assert launch.unpassed(["accelerate", "launch", "t2i/train.py"]) == {}
    line = ["/venv/bin/python", "/venv/bin/accelerate", "launch", "--num_processes", "2", "t2i/train.py", "name=x"]
    monkeypatch.setattr(launch, "_of_parent", lambda what: line)
    assert launch.launcher() == ["accelerate", *line[2:]]
    monkeypatch.setattr(launch, "_of_parent", lambda what: ["bash", "train.sh"])
    assert launch.launcher() == []
