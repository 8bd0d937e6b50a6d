"""Early Attentive Sparsification: which encoder positions are kept, and the layer that drops the others."""
