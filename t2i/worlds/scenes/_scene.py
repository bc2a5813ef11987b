"""What a scene is: the contract that every file of this folder keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from t2i.painting.pen import Color, Pen, Plan

Sentences = list[tuple[float, str]]  # weight, sentence


@dataclass
class Draft:
    """A plan in the making: its subject's name and colour are chosen, the scene adds the rest."""

    rng: Random
    subject: dict[str, Any]
    background: dict[str, Any]  # the time of day, and whether there are clouds
    colors: dict[str, list[str]]  # companion → the colours it may have; none for one that has one look only
    companions: list[dict[str, Any]] = field(default_factory=list)

    def place(self, width: tuple[float, float], aspect: float, bottom: tuple[float, float]) -> None:
        """One subject of a width drawn from a range, standing on a line drawn from a range."""
        w = self.rng.uniform(*width)
        x, base = self.rng.uniform(0.02, 0.98 - w), self.rng.uniform(*bottom)
        self.subject["boxes"] = [(x, base - aspect * w, w, aspect * w)]

    def add(self, name: str, box: Sequence[float]) -> None:
        """A companion of the subject."""
        color = self.rng.choice(self.colors[name]) if self.colors[name] else None
        self.companions.append({"name": name, "color": color, "count": 1, "box": rounded(box)})


def rounded(box: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in box]


class Scene:
    """Where a picture plays: what may be there, how it is planned and painted, and what is said about it.

    Sentences are templates: {subject} becomes "a red train", {color} "red" or nothing, {it} "it" or "them", and
    {stand} at times the colour of what the subject lies on.
    """

    subjects: dict[str, tuple[str, ...]]  # what it may be of, in which colours; () for what has one look only
    companions: dict[str, tuple[str, ...]] = {}  # what may come along, likewise
    faces = False  # whether the subject looks to one side
    moves = False  # to which it then is heading
    outdoors = True  # whether the time of day is said
    colored = True  # whether the whole subject has its colour: "the train on the tracks is red"
    stand = ""  # the companion that the subject lies on

    nouns: dict[str, tuple[str, ...]] = {}  # subject → what it is called, where not by its name alone
    kinds: dict[str, tuple[str, ...]] = {}  # kind of a subject → what it is called
    aliases: dict[str, str] = {}  # companion → what it is called as well
    doing: tuple[str, ...]  # to follow "a red train" or "a red train is"
    where: tuple[str, ...]  # to follow "there is a red train"
    whole: tuple[str, ...]  # sentences that only this scene knows

    def plan(self, draft: Draft) -> None:
        """Sets subject["boxes"], and whatever else the picture shows."""
        raise NotImplementedError

    def paint(self, pen: Pen, rng: Random, plan: Plan, color: Color, frames: list[Pen]) -> None:
        """See t2i.painting.pen.paint."""
        raise NotImplementedError

    def noun(self, subject: dict[str, Any], rng: Random) -> str:
        """What one subject is called."""
        choice = self.nouns.get(subject["name"], (subject["name"],))
        if subject.get("kind") in self.kinds and rng.random() < 0.6:
            choice = self.kinds[subject["kind"]]
        return rng.choice(choice)

    def one(self, subject: dict[str, Any], color: str, rng: Random) -> str:
        """'a small red train'."""
        noun, width, size = self.noun(subject, rng), subject["box"][2], ""
        if rng.random() < 0.15:
            size = "large " if width > 0.72 else "small " if width < 0.6 else ""
        return f"a {size}{color} {noun}"

    def sentences(self, plan: Plan, subject: str, companions: list[str], tail: str, when: str) -> Sentences:
        """Sentences about what only this scene has; tail and when: where and when it is, or nothing."""
        return []
