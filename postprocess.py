"""Re-exports names of `paddleseg_infer.postprocess` for scripts in this folder."""

from paddleseg_infer.postprocess import (
    OutputReader,
    are_probabilities,
    label_map,
    output_kind,
    restore,
    score_map,
)

__all__ = [
    "OutputReader",
    "are_probabilities",
    "label_map",
    "output_kind",
    "restore",
    "score_map",
]
