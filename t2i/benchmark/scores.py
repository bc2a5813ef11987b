"""What scoring costs, networks aside: every metric on pictures that cost little, and networks that give numbers of the
true sizes. One process scores as score.py does, so that its memory is what scoring takes."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2i.errors import UserError

ROOT = Path(__file__).parents[2]
COLUMNS = {"what": "", "CPU s": ".0f", "GB": ".2f", "scores": ""}
WIDTHS = {"inception": 2048, "logits": 1008, "clip": 512, "clip_text": 512, "vgg": 1472, "inception_clean": 2048,
          "trunk": 1280}  # fmt: skip
CLASSES = 80
NO_NETWORK = ("patches",)  # looks at pictures without one, and so is measured as it is
# They ask a generator, are nothing but their network, or are of drawn scenes alone.
LEFT_OUT = ("eq_r", "eq_t", "ppl", "probe", "shape", "shape_kd")


def scores(count: int, side: int, chosen: Sequence[str] | None = None, threads: int = 1) -> list[dict[str, Any]]:
    """A row a metric, before them what is done picture by picture, and last the whole: CPU seconds, and the most memory
    meanwhile, less what lies in files. UserError where the process fails."""
    from t2i.metrics import known

    names = list(chosen) if chosen else [n for n in known() if n not in LEFT_OUT]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "t2i.benchmark.scores", str(count), str(side), str(threads), *names]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"benchmark of {', '.join(names)}: ended with status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


class Meter:
    """CPU seconds of this process, and the most of its memory that is no file's, which the system could put away."""

    def __init__(self) -> None:
        self.most = self.peak = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def row(self, what: str, taken: float, said: str = "") -> None:
        """Prints the figures since the last row."""
        self.most = max(self.most, self.peak)
        print(json.dumps({"what": what, "CPU s": taken, "GB": self.peak, "scores": said}), flush=True)
        self.peak = _memory()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, _memory())
            time.sleep(0.02)


def measure(count: int, side: int, threads: int, names: Sequence[str]) -> None:
    """Prints the rows as JSON, one as soon as it is known."""
    import torch

    from t2i.metrics import metric, networks, suite
    from t2i.metrics.networks import Settings

    torch.set_num_threads(threads)
    meter, begin = Meter(), _cpu()
    seen = dict.fromkeys(NO_NETWORK, 0.0)

    def load(name: str, settings: Settings, device: Any) -> Any:
        if name not in NO_NETWORK:
            return _network(name)
        network = networks.load(name, settings, device)

        def see(images: Any, numbers: Sequence[int]) -> dict[str, Any]:
            start = _cpu()
            found = network.see(images, numbers)
            seen[name] += _cpu() - start
            return found

        return replace(network, see=see)

    class Judge(suite.Suite):
        def _measure(self, metric: Any, evidence: Any, result: Any) -> None:
            if not result.scores and not result.left_out:  # the first: all pictures have been looked at
                meter.row("pictures, stand-ins", _cpu() - begin - sum(seen.values()))
                for name in set(seen) & set(self.networks):
                    meter.row(f"pictures, {name}", seen[name])
            start, before = _cpu(), (len(result.scores), len(result.intervals))
            try:
                super()._measure(metric, evidence, result)
            finally:
                gained = len(result.scores) - before[0], len(result.intervals) - before[1]
                meter.row(metric.name, _cpu() - start, "{}, {} with intervals".format(*gained))

    judge = Judge(metric.named(names), Settings(), _Pictures(count, side, 1), progress=False, load=load)  # type: ignore[arg-type]
    result = judge.score(_Pictures(count, side, 0))  # type: ignore[arg-type]
    meter.peak = meter.most
    left = f"; without {', '.join(result.left_out)}" if result.left_out else ""
    meter.row("all", _cpu() - begin, f"{len(result.scores)}, {len(result.intervals)} with intervals{left}")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> float:
    """GB now."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("RssAnon")), 0) / 1e6


class _Pictures:
    """As a reference and as what is judged: one picture, moved and dimmed by each number."""

    captioned, scenes, encoding, resize, said = True, False, "lossless", None, "stand-in"

    def __init__(self, count: int, side: int, seed: int):
        import torch

        from t2i.metrics.captions import Caption

        self.count, self.resolution = count, side
        rng = torch.Generator().manual_seed(seed)
        self.base = torch.rand(3, side, 2 * side, generator=rng) * 2 - 1
        classes = ("cat", "dog", "bus", "train", "boat", "bird")
        self.all = [Caption(f"{classes[n % 6]} number {n // 2}", n) for n in range(count)]

    @property
    def captions(self) -> Any:
        """A list of those to be judged, and what a reference answers when it is asked for so many."""
        return _Captions(self.all)

    def pick(self, numbers: Sequence[int]) -> Any:
        import torch

        side = self.resolution
        return torch.stack([self.base[:, :, n % side : n % side + side] * (0.5 + n % 7 / 14) for n in numbers])

    def pairs(self, count: int) -> list[tuple[int, int]]:
        return [(2 * i, 2 * i + 1) for i in range(min(count, self.count // 2))]

    def describe(self, count: int = 0) -> dict[str, Any]:
        return {"model": "stand-in", "reference_count": count}


class _Captions(list):
    def __call__(self, count: int) -> list[Any]:
        return self[:count]


def _network(name: str) -> Any:
    """Numbers of the width of the true network's features, drawn by the picture's number."""
    import torch

    from t2i.metrics import soa
    from t2i.metrics.networks import Network
    from t2i.metrics.networks.detector import Detector

    def rows(numbers: Sequence[int], width: int) -> Any:
        rng = torch.Generator().manual_seed(1000 + numbers[0])
        return torch.randn(len(numbers), width, generator=rng)

    features = {"inception": ("inception", "logits")}.get(name, (name,))
    if name == "detector":
        known = Detector(list(soa.CLASSES), lambda caption: soa.named(caption.text))
        return Network(lambda images, n: {"seen": rows(n, CLASSES) > 0}, "stand-in", known)
    if name.startswith("lpips"):
        distance = lambda a, b: (a - b).abs().mean((1, 2, 3))
        return Network(lambda images, n: {}, "stand-in", distance)
    if any(f not in WIDTHS for f in features):
        return Network(lambda images, n: {name: rows(n, 1280)}, "stand-in")
    layers = {"relu1_2": 64, "relu2_2": 128, "relu3_4": 256, "relu4_4": 512, "relu5_4": 512}
    itself = type("Vgg", (), {"layers": layers})
    read = lambda captions: {"clip_text": rows([len(captions)], 512).expand(len(captions), -1).clone()}
    see = lambda images, n: {f: rows(n, WIDTHS[f]) for f in features}
    return Network(see, "stand-in", itself, read if name == "clip" else lambda captions: {})


if __name__ == "__main__":
    number, pixels, cores = map(int, sys.argv[1:4])
    measure(number, pixels, cores, sys.argv[4:])
