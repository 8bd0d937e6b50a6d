"""Word error rates on real speech, beside those of other programs on the same weights."""
