"""Studies on real weights and real speech whose tables are in docs/measurements; each is run by hand."""
