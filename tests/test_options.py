"""Options of a command from a dataclass."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from t2i.errors import UserError
from t2i.options import OPEN, Parser, add_options, field_comments, given


@dataclass(frozen=True, kw_only=True)
class Base:
    """Of all commands."""

    seed: int = 0  # where numbers start
    # a long comment above,
    # on two lines
    share: float | None = None  # 50 % at most


@dataclass(frozen=True, kw_only=True)
class Own(Base):
    """Of this one."""

    held_out: str = "x"  # what is not "shown", say '#1'
    out: Path | None = None  # a file
    size: int = OPEN  # pixels (64)
    quick: bool = False  # less of everything
    seed: int = 7  # where numbers start here


def parse(*words: str, **more) -> dict:
    parser = Parser("what it does")
    add_options(parser, Own, **more)
    return given(parser.parse_args(list(words)), Own)


def test_comments_are_read_from_the_source():
    assert field_comments(Own) == {
        "held_out": "what is not \"shown\", say '#1'",
        "out": "a file",
        "size": "pixels (64)",
        "quick": "less of everything",
        "seed": "where numbers start here",
        "share": "a long comment above, on two lines 50 % at most",
    }


def test_only_what_is_given_is_named():
    assert parse() == {}
    words = ["--held-out", "a", "--seed", "3", "--share", "0.5", "--out", "f", "--quick", "--size", "9"]
    assert Own(**parse(*words)) == Own(held_out="a", seed=3, share=0.5, out=Path("f"), quick=True, size=9)
    assert parse("--no-quick", "--name", "y", names={"held_out": "--name"}) == {"quick": False, "held_out": "y"}


def test_help_has_comments_and_defaults():
    parser = Parser("what it does", "more")
    add_options(parser, Own, ["quick"], share=0.25)
    text = " ".join(parser.format_help().split())
    for line in ("say '#1' (x)", "pixels (64) ", "where numbers start here (7)", "50 % at most (0.25)"):
        assert line in text
    assert "--quick" not in text


def test_mistakes_are_one_line():
    for words in (["--sede", "3"], ["--seed", "x"], ["--held", "x"]):
        with pytest.raises(UserError) as error:
            parse(*words)
        assert "\n" not in str(error.value)
    assert isinstance(Parser(None), argparse.ArgumentParser)
