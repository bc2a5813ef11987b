"""Search at inference: spend a budget of generator evaluations on the best pictures that a prompt can have.

    from t2i import load
    from t2i.search.run import search
    from t2i.search.settings import Settings

    results = search(load("scenes-stylegan2"), ["a green train"], Settings(algorithm="sep_cma", budget=2000))

This file and settings.py import nothing heavy: the command's --help and its complaints come from there.
"""
