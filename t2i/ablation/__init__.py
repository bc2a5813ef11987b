"""Ablations: a YAML of rows × seeds (plan), its runs (jobs), what came out (results) and a page of it (report)."""
