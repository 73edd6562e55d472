"""Re-exports names of `paddleseg_infer.preprocess` for scripts in this folder."""

from paddleseg_infer.formats.size import image_size
from paddleseg_infer.preprocess import (
    check_is_file,
    check_memory,
    decode_image,
    prepare,
    read_file,
    read_image,
    size_after,
)

__all__ = [
    "check_is_file",
    "check_memory",
    "decode_image",
    "image_size",
    "prepare",
    "read_file",
    "read_image",
    "size_after",
]
