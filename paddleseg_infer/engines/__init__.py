"""The engines that run a model, and the one decision which of them does."""
