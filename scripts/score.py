"""How good pictures are, by a protocol that is stored with every score.

    python scripts/score.py --checkpoint runs/x --reference shards/coco2014-val-256      a run, all that can be computed
    python scripts/score.py --pictures FOLDER --captions FILE --reference shards/...      any other system's pictures
    python scripts/score.py --compare a.json b.json                                       side by side, if comparable
    python scripts/score.py --floors shards/... --reference shards/...                    what scores make of noise
    python scripts/score.py --nearest FILE.png --reference shards/...                     copies of training pictures?
    python scripts/score.py --agreement shards/... --clip NAME                            does the encoder agree with
                                                                                          the people who wrote captions?
A metric that turns out not to be computable is left out and named, on the terminal and in the JSON; the others are
kept, and the exit status is 0. Several processes: accelerate launch scripts/score.py ...
"""

import argparse

from t2i import metrics, options
from t2i.errors import UserError, run_command
from t2i.metrics import networks
from t2i.metrics.request import Request


def parser() -> options.Parser:
    p = options.Parser(__doc__, epilog=f"Metrics: {', '.join(metrics.known())}.")
    options.add_options(p, Request, leave_out=["networks"])
    judges = p.add_argument_group("networks that judge, where they are not in their usual place")
    for name, setting in networks.declared().items():
        judges.add_argument(options.flag(name), metavar=setting.metavar, help=setting.help)
    p.add_argument("--compare", nargs="+", metavar="JSON", help="print these files side by side, and do nothing else")
    p.add_argument("--force", action="store_true", help="with --compare: even where the protocols differ")
    return p


def arguments(given: list[str] | None = None) -> tuple[argparse.Namespace, Request | None]:
    """The options, and what they ask to be judged; None where files are to be compared."""
    o = parser().parse_args(given)
    if o.compare:
        if len(o.compare) < 2:
            raise UserError("--compare: give two files or more")
        return o, None
    said = {name: value for name in networks.declared() if (value := getattr(o, name))}
    return o, Request(**options.given(o, Request), networks=said)


def main(given: list[str] | None = None) -> None:
    o, request = arguments(given)
    if request:
        from t2i.metrics import scoring  # only now: a mistake above should not wait for torch

        scoring.run(request)
    else:
        from t2i.metrics.compare import compare

        print(compare(o.compare, o.force))


if __name__ == "__main__":
    run_command(main)
