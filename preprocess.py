"""Re-exports names of `paddleseg_infer.preprocess` for scripts in this folder."""

from paddleseg_infer.formats.size import image_size
from paddleseg_infer.preprocess import prepare, read_image, size_after

__all__ = ["image_size", "prepare", "read_image", "size_after"]
