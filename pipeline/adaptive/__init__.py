"""Adaptive sparsity with a kept accuracy budget: what is decided, and on which evidence. Without Ray."""
