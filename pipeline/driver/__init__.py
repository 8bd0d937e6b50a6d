"""A job from its request to its totals."""
