"""What search buys: algorithms x settings x prompts x seeds, by the optimised score, the held-out one and the probe.

    python scripts/search_table.py                     the shipped scenes model, held-out pairs of colour and object
    python scripts/search_table.py --budget 2000       evaluations a run (the settings keep their shapes)
    python scripts/search_table.py --overhead          what the algorithms themselves cost a generation

Every run lands in rows.jsonl at once; the same command goes on after a kill, or when asked for more. table.md and
table.json are made anew from all rows.
"""

from pathlib import Path

from t2i.errors import run_command
from t2i.options import DEVICE, Parser, add_options, given
from t2i.search.comparison import DEFAULTS, VARIED, Comparison, build_cells, shared_settings
from t2i.search.settings import Settings, choices


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    comparison = Comparison(**given(options, Comparison))
    if options.overhead:
        from t2i.search.overhead import overhead

        overhead(comparison.names, options.population, options.dim)
        return
    shared = shared_settings({k: v for k, v in given(options, Settings).items() if k not in VARIED})
    cells = build_cells(comparison, shared)

    from t2i.search.compare import compare  # only now: a mistake above should not wait for torch

    print(compare(comparison, cells, shared, options.checkpoint, options.device, options.out))


def parser() -> Parser:
    p = Parser(__doc__, choices())
    p.add_argument("--checkpoint", default="scenes-stylegan2", help="(%(default)s)")
    add_options(p, Comparison)
    p.add_argument("--device", help=DEVICE)
    p.add_argument("--out", type=Path, default=Path("out/search-table"), help="(%(default)s)")
    add_options(p.add_argument_group("of every run"), Settings, VARIED, **DEFAULTS)
    o = p.add_argument_group("overhead")
    o.add_argument("--overhead", action="store_true", help="time the algorithms alone, at --population and --dim")
    o.add_argument("--population", type=int, default=1000, help="(%(default)s)")
    o.add_argument("--dim", type=int, default=512, help="(%(default)s)")
    return p


if __name__ == "__main__":
    run_command(main)
