"""Sources of images. Each source has a name, a size that needs no decoding, and pixels."""
