"""What this machine has: the installed Paddle, its GPU, processors and memory, a store of files."""
