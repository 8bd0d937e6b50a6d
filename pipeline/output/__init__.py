"""An output on disk or in a bucket: whole files, each written once."""
