"""The Ray Data graph; the only package that imports ray."""
