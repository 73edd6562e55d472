"""PaddleSeg's deterministic transforms, their arguments, and the image that they change."""
