"""Re-exports names of `paddleseg_infer.postprocess` for scripts in this folder."""

from paddleseg_infer.postprocess import (
    Maps,
    OutputReader,
    are_probabilities,
    label_map,
    output_kind,
    probability_map,
    restore,
    score_map,
)

__all__ = [
    "Maps",
    "OutputReader",
    "are_probabilities",
    "label_map",
    "output_kind",
    "probability_map",
    "restore",
    "score_map",
]
