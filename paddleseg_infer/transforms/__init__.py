"""PaddleSeg's deterministic transforms, their arguments, and the image on its way through them."""
