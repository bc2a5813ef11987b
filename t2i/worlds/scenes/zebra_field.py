"""Zebras in a field."""

from random import Random as Rng

from t2i.painting.pen import Color, Pen, Plan
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._field import DOING, WHERE, WHOLE, paint_field, plan_field
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"zebra": ()}
    faces = True
    doing, where, whole = DOING, WHERE, WHOLE

    def plan(self, draft: Draft) -> None:
        plan_field(draft)

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        paint_field(pen, rng, plan, frames, coat=(246, 244, 238), mane=(30, 28, 30), stripes=(30, 28, 30))
