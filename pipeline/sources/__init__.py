"""Inputs to recordings: folders, URLs, manifests, tar and Parquet files; references beside them."""
