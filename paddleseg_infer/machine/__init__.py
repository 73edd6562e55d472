"""This machine: the installed Paddle, GPU, processors and memory, and a store of files."""
