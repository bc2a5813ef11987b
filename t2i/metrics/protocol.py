"""The fingerprint of a score: what two scores must have in common to be compared."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from t2i.metrics.captions import digest
from t2i.metrics.metric import Metric, owner
from t2i.metrics.networks import Network
from t2i.metrics.references import AnyReference
from t2i.metrics.sources import Generated, Source

ALWAYS = (
    "resolution",
    "samples",
    "captions",
    "seed",
    "truncation",
    "noise",
    "encoding",
    "resized",
)  # what every score depends on
OF_REFERENCE = ("resize", "reference", "reference_count")


def describe(
    source: Source,
    metrics: Sequence[Metric],
    networks: Mapping[str, Network],
    reference: AnyReference | None,
    reference_count: int,
    pairs: int,
    seed: int,
) -> dict[str, Any]:
    """The fields of a source's scores by some metrics."""
    fields: dict[str, Any] = {
        "resolution": source.resolution,
        "samples": len(source.captions),
        "captions": digest(source.captions) if source.captioned else None,
        "seed": seed,
        "truncation": source.truncation if isinstance(source, Generated) else None,
        "noise": source.noise if isinstance(source, Generated) else None,
        "encoding": source.encoding,
        "resized": f"to {source.resize}, the middle square, Pillow Lanczos" if source.resize else "no",
    }
    if reference:
        fields |= reference.describe(reference_count)
    fields |= {name: network.fingerprint for name, network in networks.items()}
    for metric in metrics:
        fields[definition(metric)] = {"version": metric.version} | metric.settings(
            len(source.captions), reference_count
        )
    if any(m.of_pairs for m in metrics):
        fields["pairs"] = len(source.pairs(pairs))
    return fields


def definition(metric: Metric) -> str:
    """The field that holds how a metric is defined here: its version and settings."""
    return f"metric {metric.name}"


def relevant(metrics: Sequence[Metric]) -> set[str]:
    """The fields that these metrics' scores depend on."""
    out = set(ALWAYS)
    for metric in metrics:
        out |= {definition(metric), *metric.networks}
        out |= set(OF_REFERENCE) if metric.reference else set()
        out |= {"pairs"} if metric.of_pairs else set()
    return out


def differences(results: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Field → its value in each of several results, for those that differ and that a score they share depends on.

    A field that one of them cannot know, as the ψ of another system's pictures, makes no difference.
    """
    shared = set.intersection(*(set(r["scores"]) for r in results))
    out = {}
    for field in sorted(relevant([m for m in map(owner, shared) if m])):
        values = [r["protocol"].get(field) for r in results]
        if len({json.dumps(v) for v in values if v is not None}) > 1:
            out[field] = values
    return out


def fingerprint(protocol: dict[str, Any]) -> str:
    """Sixteen hex digits that two scores share if nothing differed."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]


def hashed(network: nn.Module) -> str:
    """Sixteen hex digits of all weights, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
