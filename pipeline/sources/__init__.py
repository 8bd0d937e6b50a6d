"""Inputs to recordings: folders, patterns, files, URLs, manifests and containers.

`listing` takes the inputs apart, one module each reads a kind, `opening` opens what a plan names,
`references` reads texts to score against.
"""

from pipeline.sources.listing import list_recordings
from pipeline.sources.recording import InputError, Listing, Recording
from pipeline.sources.references import References, read_references, read_truths

__all__ = [
    "InputError",
    "Listing",
    "Recording",
    "References",
    "list_recordings",
    "read_references",
    "read_truths",
]
