"""Ablations: rows × seeds of training runs, their scores, and a page about them.

trials     what an ablation is made of            plan      the YAML of one, read and checked
commands   what a trial runs                      slots     where trials may run side by side
jobs       a trial's commands at work             run       all of them, one after the other
results    what a run's folder tells              summary   rows over their seeds, compared with the first
chart, pictures, tables, report                   the page and the CSV files
"""
