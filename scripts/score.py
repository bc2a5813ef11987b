"""How good pictures are, by a protocol that is stored with every score.

    python scripts/score.py --checkpoint runs/x --reference shards/coco2014-val-256      a run, all that can be computed
    python scripts/score.py --pictures FOLDER --captions FILE --reference shards/...      any other system's pictures
    python scripts/score.py --compare a.json b.json --out table.tex figure.pdf            side by side, if comparable
    python scripts/score.py --checkpoint runs/x --reference ... --truncations 1,0.9,0.7   a curve over the truncation ψ
    python scripts/score.py --floors shards/... --reference shards/...                    what scores make of noise
    python scripts/score.py --nearest FILE.png --reference shards/...                     copies of training pictures?
    python scripts/score.py --agreement shards/... --clip NAME                            does the encoder agree with
                                                                                          the people who wrote captions?
A metric that turns out not to be computable is left out and named, on the terminal and in the JSON; the others are
kept, and the exit status is 0. Several processes: accelerate launch scripts/score.py ...
"""

import argparse
from pathlib import Path

from t2i import metrics, options
from t2i.errors import UserError, run_command
from t2i.metrics import networks
from t2i.metrics.request import Request, listed


def parser() -> options.Parser:
    p = options.Parser(__doc__, epilog=f"Metrics: {', '.join(metrics.known())}.")
    options.add_options(p, Request, leave_out=["networks"])
    judges = p.add_argument_group("networks that judge, where they are not in their usual place")
    for name, setting in networks.declared().items():
        judges.add_argument(options.flag(name), metavar=setting.metavar, help=setting.help)
    p.add_argument("--compare", nargs="+", metavar="JSON", help="print these files side by side, and do nothing else")
    p.add_argument("--force", action="store_true", help="with --compare: even where the protocols differ")
    out = "with --compare or --truncations: also write .md, .tex, .csv, .txt (a table), .png, .pdf, .svg (a figure)"
    p.add_argument("--out", nargs="+", type=Path, default=[], metavar="FILE", help=out)
    p.add_argument("--axes", metavar="X,Y", help="scores of the figure's curve, a line a model along ψ: clip_score,fid")
    return p


def arguments(given: list[str] | None = None) -> tuple[argparse.Namespace, Request | None]:
    """The options, and what they ask to be judged; None where files are to be compared."""
    o = parser().parse_args(given)
    o.axes = o.axes.split(",") if o.axes else None
    if o.axes and len(o.axes) != 2:
        raise UserError(f"--axes {','.join(o.axes)}: two scores with a comma between, such as clip_score,fid")
    if o.compare:
        if len(o.compare) < 2:
            raise UserError("--compare: give two files or more")
        return o, None
    said = {name: value for name in networks.declared() if (value := getattr(o, name))}
    request = Request(**options.given(o, Request), networks=said)
    if (o.out or o.axes) and not request.truncations:
        raise UserError(f"{'--out' if o.out else '--axes'}: only with --compare or --truncations; scores go to --json")
    return o, request


def main(given: list[str] | None = None) -> None:
    o, request = arguments(given)
    if request:
        from t2i.metrics import scoring  # only now: a mistake above should not wait for torch

        scoring.run(request, o.out, o.axes)
    else:
        from t2i.metrics import compare, paper

        for path in o.out:
            paper.check(path)
        only = [*listed(o.metrics), *(o.axes or [])] if hasattr(o, "metrics") else None
        found = compare.gather(o.compare, o.force, only, {"truncation"} if o.axes else ())
        print(compare.text(found))
        for path in o.out:
            paper.write(found, path, o.axes)
            print(f"written to {path}")


if __name__ == "__main__":
    run_command(main)
