"""What scoring costs, networks aside: every metric by itself, on pictures that cost nothing and networks that give
numbers of the true sizes. Each is measured in a process of its own, whose memory and processor time are its alone."""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2i.errors import UserError

ROOT = Path(__file__).parents[2]
COLUMNS = {"metrics": "", "CPU s": ".0f", "pictures": ".0f", "mathematics": ".0f", "GB": ".2f", "scores": ""}
WIDTHS = {"inception": 2048, "logits": 1008, "clip": 512, "clip_text": 512, "vgg": 1472, "inception_clean": 2048}
CLASSES = 80
NO_NETWORK = ("patches",)  # looks at pictures without one, and so is measured as it is
LEFT_OUT = ("eq_r", "eq_t", "ppl", "probe")  # ask a generator, or are nothing but their network


def scores(count: int, side: int, chosen: Sequence[str] | None = None, threads: int = 1) -> list[dict[str, Any]]:
    """A row a metric, and one of all together: CPU seconds in all, those of looking at pictures and those of the
    mathematics; and the most memory, less what lies in files. UserError where a process fails."""
    from t2i.metrics import known

    names = list(chosen) if chosen else [n for n in known() if n not in LEFT_OUT]
    rows = []
    for asked in tqdm([*([n] for n in names), *([names] if len(names) > 1 else [])], unit="metric", disable=None):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "t2i.benchmark.scores", str(count), str(side), str(threads), *asked]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(f"benchmark of {', '.join(asked)}: {said[-1]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def measure(count: int, side: int, threads: int, names: Sequence[str]) -> dict[str, Any]:
    """One row, of this process. "GB" is the most that was in memory and not in files, which the system can put away."""
    import torch

    from t2i.metrics import metric, networks, suite
    from t2i.metrics.networks import Settings

    torch.set_num_threads(threads)
    peak, over = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, over), daemon=True)
    watcher.start()
    settings = Settings(seed=0)
    load = lambda name, s, device: networks.load(name, s, device) if name in NO_NETWORK else _network(name)
    judge = suite.Suite(metric.named(names), settings, _Pictures(count, side, 1), progress=False, load=load)  # type: ignore[arg-type]
    start = _cpu()
    judge.look_at_reference()
    seen = _cpu() - start
    source = _Pictures(count, side, 0)
    looked = judge._look_at
    taken = [0.0]

    def look(one: Any) -> dict[str, Any]:
        before = _cpu()
        found = looked(one)
        taken[0] = _cpu() - before
        return found

    judge._look_at = look  # type: ignore[assignment,method-assign]
    result = judge.score(source)  # type: ignore[arg-type]
    whole = _cpu() - start
    over.set()
    watcher.join()
    looking = seen + taken[0]
    left = f"; without {', '.join(result.left_out)}" if result.left_out else ""
    shown = names[0] if len(names) == 1 else "all together"
    return {
        "metrics": shown, "CPU s": whole, "pictures": looking, "mathematics": whole - looking, "GB": peak[0] / 1e6,
        "scores": f"{len(result.scores)}, {len(result.intervals)} with intervals{left}",
    }  # fmt: skip


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _watch(peak: list[int], over: threading.Event) -> None:
    """Memory of this process that is no file's, in kB, every 20 ms."""
    while not over.wait(0.02):
        with open("/proc/self/status", encoding="ascii") as file:
            held = next((int(line.split()[1]) for line in file if line.startswith("RssAnon")), 0)
        peak[0] = max(peak[0], held)


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
    print(json.dumps(measure(number, pixels, cores, sys.argv[4:])))
