"""What is said about a scene: captions in COCO's tone, each about some of what its plan shows."""

import re
from random import Random

from t2i.painting.pen import Plan
from t2i.worlds.scenes._scene import Scene, Sentences

WHEN = {
    "day": ("on a sunny day", "during the day", "under a blue sky", "in the daytime"),
    "sunset": ("at sunset", "as the sun sets", "in the evening", "at dusk"),
    "cloudy": ("on a cloudy day", "under a cloudy sky", "on a gray day", "under gray skies"),
    "night": ("at night", "at night time", "under a dark sky", "in the dark"),
}
AROUND = {
    "trees": ("near some trees", "next to some trees", "by the trees", "with trees in the background"),
    "buildings": ("in front of some buildings", "near tall buildings", "in the city", "with buildings behind {it}"),
    "hills": ("near some hills", "with hills in the background", "in front of green hills", "in the countryside"),
    "mountains": ("near the mountains", "with mountains in the background", "in front of a mountain"),
    "fence": ("behind a wooden fence", "by a fence", "next to a fence"),
    "nothing": (),
}
NUMBERS = {
    2: ("two", "two", "a couple of", "a pair of"),
    3: ("three", "three", "several", "a group of"),
    4: ("four", "four", "several", "a bunch of"),
}


def describe(plan: Plan, scene: Scene, rng: Random) -> list[str]:
    """Five distinct captions; three or four of them name the subject's colour."""
    flags = [True, True, True, rng.random() < 0.5, False]
    rng.shuffle(flags)
    captions: list[str] = []
    for flag in flags:
        text = caption(plan, scene, rng, flag)
        while text in captions:
            text = caption(plan, scene, rng, flag)
        captions.append(text)
    return captions


def caption(plan: Plan, scene: Scene, rng: Random, colored: bool) -> str:
    """One sentence about some of what is shown; it names the subject's colour if (and only if) `colored`."""
    s, ground = plan["objects"][0], plan["background"]
    several = s["count"] > 1
    color = (s["color"] or "") if colored else ""
    if several:
        subject = f"{rng.choice(NUMBERS[s['count']])} {color} {s['name']}s"  # 'two red kites', 'a couple of horses'
    else:
        subject = scene.one(s, color, rng)
    is_ = "are" if several else "is"
    doing, at = rng.choice(scene.doing), rng.choice(scene.where)

    tails = AROUND[ground.get("around", "nothing")] if rng.random() < 0.45 else ()
    tail = rng.choice(tails) if tails else ""
    when = rng.choice(WHEN[ground["time"]]) if "time" in ground and scene.outdoors else ""
    if rng.random() > 0.4:
        when = ""
    centre = s["box"][0] + s["box"][2] / 2
    side = "left" if centre < 0.42 else "right" if centre > 0.58 else ""
    facing = s.get("facing", "")
    companions = [f"a {o['color']} {o['name']}" if o["color"] and rng.random() < 0.4 else f"a {o['name']}"
                  for o in plan["objects"][1:] if o["name"] != scene.stand]  # fmt: skip
    for name, alias in scene.aliases.items():
        if f"a {name}" in companions and rng.random() < 0.4:
            companions[companions.index(f"a {name}")] = f"a {alias}"

    forms: Sentences = [
        (4, f"{subject} {doing} {tail} {when}"),
        (2.5, f"{subject} {is_} {doing} {tail} {when}"),
        (1.5, f"there {is_} {subject} {at} {tail} {when}"),
        (1.5, f"{subject} {at} {tail} {when}"),
        (0.6, f"{subject} that {is_} {doing} {when}"),
        (0.7, f"{subject} {when}"),
        (0.5, f"a {rng.choice(('picture', 'photo', 'view', 'image'))} of {subject} {at} {tail}"),
    ]
    whole = rng.choice(scene.whole)
    if "{color}" not in whole or color:
        forms.append((1.5, f"{whole} {when}"))
    if color and not several and scene.colored:
        forms.append((0.4, f"the {s['name']} {at} {is_} {color}"))
    if side:
        forms.append(
            (0.6, f"{subject} on the {side} {rng.choice(('side', 'side of the picture', 'side of the image'))}")
        )
    if facing and scene.moves:
        forms.append((0.6, f"{subject} {rng.choice(('heading to the', 'moving to the', 'facing'))} {facing} {at}"))
    elif facing and not several:
        forms.append((0.6, f"{subject} facing {facing} {at}"))
    forms += scene.sentences(plan, subject, companions, tail, when)

    text = rng.choices([f for _, f in forms], [w for w, _ in forms])[0]
    stand = next((o["color"] for o in plan["objects"][1:] if o["name"] == scene.stand), "")
    stand = f"{stand} " if rng.random() < 0.35 else ""
    for name, value in ("subject", subject), ("color", color), ("it", "them" if several else "it"), ("stand", stand):
        text = text.replace(f"{{{name}}}", value)
    return sentence(text)


def sentence(text: str) -> str:
    """One space between words, 'an' before vowels, a capital and a full stop."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + "."
