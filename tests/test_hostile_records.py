"""Records of searches from elsewhere: whatever is in them, a replay and a continued search end well or in one line."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_search_commands import script
from tiny_search import PROMPT, QUICK, brightness, make

from t2i.drawing import provenance
from t2i.errors import UserError
from t2i.model import load_model
from t2i.search.run import search

SOME = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
VALUES = [None, -1, 10**30, 1e400, float("nan"), True, "x", "", [], [1], {}, {"a": 1}, "AAAA", [""], "pipe:true"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A model, and the lines of a record of a search in it."""
    folder = make(tmp_path_factory.mktemp("model"))
    model, out = load_model(folder), tmp_path_factory.mktemp("out")
    searches(model, out)
    return folder, model, (out / "record.jsonl").read_bytes().splitlines(keepends=True)


def searches(model, out):
    return search(model, [PROMPT], replace(QUICK, budget=16), out, brightness, head=provenance(model, QUICK))


def replays(searched, file, index=0):
    """The command; a mistake is one line."""
    out = file.with_suffix(".png")
    out.unlink(missing_ok=True)
    given_ = ["--replay", str(file), "--index", str(index), "--checkpoint", str(searched[0])]
    try:
        script("generate").main([*given_, "--device", "cpu", "--out", str(out)])
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return False
    assert out.is_file()
    return True


def test_an_altered_candidate_is_noticed(searched, tmp_path):
    _, model, lines = searched
    file = tmp_path / "record.jsonl"
    file.write_bytes(b"".join(lines))
    assert replays(searched, file)
    changed = lines[1].replace(b'"score": -0.', b'"score": -1.')
    assert changed != lines[1]
    file.write_bytes(b"".join([lines[0], changed, *lines[2:]]))
    with pytest.raises(UserError, match="damaged before generation"):
        searches(model, tmp_path)
    assert not replays(searched, file)


@SOME
@given(line=st.integers(0, 3), which=st.integers(0, 40), value=st.sampled_from(VALUES))
def test_no_altered_field_is_a_traceback(searched, tmp_path_factory, line, which, value):
    lines = list(searched[2])
    row = json.loads(lines[line])
    row[list(row)[which % len(row)]] = value
    lines[line] = json.dumps(row).encode() + b"\n"
    unsigned = [json.dumps({k: v for k, v in json.loads(x).items() if k != "sha256"}).encode() + b"\n" for x in lines]
    file = tmp_path_factory.mktemp("record") / "record.jsonl"
    file.write_bytes(b"".join(unsigned))
    replays(searched, file, index=line)


@SOME
@given(at=st.floats(0, 1), how=st.sampled_from(["cut", "flip"]))
def test_no_damaged_record_is_a_traceback(searched, tmp_path_factory, at, how):
    data = bytearray(b"".join(searched[2]))
    place = int(at * (len(data) - 1))
    if how == "cut":
        data = data[:place]
    else:
        data[place] ^= 0x15
    folder = tmp_path_factory.mktemp("record")
    (folder / "record.jsonl").write_bytes(data)
    replays(searched, folder / "record.jsonl", index=2)


@settings(SOME, max_examples=15)
@given(line=st.integers(1, 20), which=st.integers(0, 12), value=st.sampled_from(VALUES))
def test_a_search_goes_on_from_no_altered_record_with_a_traceback(searched, tmp_path_factory, line, which, value):
    lines = list(searched[2])
    line = min(line, len(lines) - 1)
    row = json.loads(lines[line])
    row[list(row)[which % len(row)]] = value
    lines[line] = json.dumps(row).encode() + b"\n"
    unsigned = [json.dumps({k: v for k, v in json.loads(x).items() if k != "sha256"}).encode() + b"\n" for x in lines]
    folder = tmp_path_factory.mktemp("record")
    (folder / "record.jsonl").write_bytes(b"".join(unsigned))
    try:
        searches(searched[1], folder)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
