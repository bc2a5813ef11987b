"""Features as they are gathered: many of them lie on the disk, and nobody can tell."""

import tempfile
from pathlib import Path

import pytest
import torch

from t2i.metrics import rows as gathered
from t2i.metrics import suite


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bool])
def test_rows_on_the_disk_are_those_in_memory_and_leave_no_file(dtype, monkeypatch, tmp_path):
    x = torch.randn(23, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for spill, files in ((1 << 30, 0), (20, 1)):
        monkeypatch.setattr(gathered, "SPILL", spill)
        rows = gathered.Rows(23)
        for part in x.split(5):
            rows.append(part.transpose(1, 2))  # not contiguous
        assert len(list(tmp_path.iterdir())) == files
        whole = rows.whole()
        assert torch.equal(whole, x.transpose(1, 2))
        assert not list(tmp_path.iterdir())
        whole.add_(1) if dtype != torch.bool else whole.logical_not_()  # it may be written to, as any tensor


def test_the_suite_gathers_what_is_large_on_the_disk(monkeypatch):
    monkeypatch.setattr(gathered, "SPILL", 1000)
    made: list[str] = []
    real = tempfile.NamedTemporaryFile

    def named(*arguments, **more):
        file = real(*arguments, **more)
        made.append(file.name)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", named)
    work = lambda numbers: {
        "large": torch.arange(numbers.start, numbers.stop)[:, None].repeat(1, 9),
        "small": torch.zeros(len(numbers), dtype=torch.bool),
    }
    found = suite.in_blocks(120, work, "pictures", progress=False)
    assert torch.equal(found["large"], torch.arange(120)[:, None].repeat(1, 9))
    assert len(found["small"]) == 120
    assert len(made) == 1
    assert not Path(made[0]).exists()
