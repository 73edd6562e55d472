"""For scripts in this folder: the names of `paddleseg_infer.preprocess`."""

from paddleseg_infer.preprocess import image_size, prepare, read_image, size_after

__all__ = ["image_size", "prepare", "read_image", "size_after"]
