"""train.py --help: every setting with its default and what it is."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from t2i import config, manual, nets

ROOT = Path(__file__).parents[1]
NETWORKS = [
    (kind, path.stem)
    for kind in ("generator", "discriminator")
    for path in sorted((ROOT / "t2i" / "nets" / f"{kind}s").glob("[a-z]*.py"))
]


def settings_of(kind: type, prefix: str) -> dict[str, object]:
    """Dotted name → default, of a dataclass and those in it."""
    found: dict[str, object] = {}
    for f in dataclasses.fields(kind):
        default = f.default if f.default is not dataclasses.MISSING else f.default_factory()
        if dataclasses.is_dataclass(default):
            found |= settings_of(type(default), f"{prefix}{f.name}.")
        else:
            found[prefix + f.name] = default
    return found


def written(lines: list[str]) -> dict[str, tuple[str, str]]:
    """Name → (default, comment)."""
    rows = (line.strip().partition("  # ") for line in lines if line.startswith("  "))
    return {name: (value, comment) for (name, _, value), comment in ((r[0].partition("="), r[2]) for r in rows)}


def sections() -> dict[str, list[str]]:
    """Heading → its lines."""
    found: dict[str, list[str]] = {}
    for line in manual.settings().splitlines():
        if line.endswith(":") and not line.startswith(" "):
            found[line] = here = []
        elif line:
            here.append(line)
    return found


def test_every_setting_is_there_with_its_default():
    lines = written(sections()["Settings, with their defaults:"])
    assert lines.keys() == settings_of(config.Config, "").keys()
    given = [f"{name}={value}" for name, (value, _) in lines.items()]
    assert config.load(None, given) == config.load()
    for line in given:  # and each alone is taken
        assert config.load(None, [line]) == config.load(), line


@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_every_option_of_every_network_is_there_with_its_default(kind, name):
    options = nets.find(f"{kind}s", name).Options
    lines = written(sections()[f"Of {kind}.name={name}:"])
    assert lines.keys() == settings_of(options, f"{kind}.").keys()
    given = config.load(None, [f"{setting}={value}" for setting, (value, _) in lines.items()])
    assert getattr(given, kind) == options()
    assert options().name == name


def test_no_heading_is_of_something_else():
    assert sections().keys() == {"Settings, with their defaults:"} | {
        f"Of {kind}.name={name}:" for kind, name in NETWORKS
    }


def test_comments_come_along_from_behind_and_above():
    lines = written(sections()["Settings, with their defaults:"])
    assert lines["train.batch"] == ("32", "global batch: over all processes and accumulation rounds")
    assert lines["train.precision"][1].startswith("auto (bf16 where the GPU")
    assert lines["train.precision"][1].endswith("fp16 (on CUDA only)")
    assert lines["text.source"][1].startswith("What stands for a picture's caption")
    assert [lines[name][0] for name in ("stages", "generator", "data.mirror")] == ["[]", "{}", "false"]
    assert lines["loss"][0].startswith("{adversarial: {weight: 1.0}, r1: ")


def test_help_prints_it_without_torch():
    script = "import sys; from t2i import train; train.main(); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", script, "--help"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.startswith("Trains a text-to-image GAN")
    assert manual.settings() in out
