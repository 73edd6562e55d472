"""Picture formats: which are read, the size of an image, and whether its file is complete."""
