"""The search: which layer, sparsity and selector are worth using with a model on a labelled corpus."""
