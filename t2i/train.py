"""Trains a text-to-image GAN: accelerate launch t2i/train.py [configs/x.yaml] [key=value ...]

With no argument it trains the scenes model. key=value changes one setting, for example train.batch=16 or
loss.img_txt_clip.weight=0.5. A run lands in runs/<name>/ and continues there when started again.
"""

import shlex
import sys
from pathlib import Path

from t2i import config, manual
from t2i.errors import run_command

DEFAULT = Path(__file__).parents[1] / "configs" / "scenes.yaml"


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n{manual.settings()}")
        return
    path = arguments.pop(0) if arguments and "=" not in arguments[0] else None
    if path is None and DEFAULT.is_file():
        path = str(DEFAULT)
    settings = config.load(path, arguments)

    from t2i import launch, loop  # only now: a mistake above should not wait for them

    again = shlex.join(launch.launcher() or ["python", *sys.argv])
    settings, place = launch.start(settings)
    try:
        loop.train(settings, place, again)
    finally:
        launch.end()


if __name__ == "__main__":
    run_command(main)
