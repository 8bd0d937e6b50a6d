"""The search: which layer, sparsity and rule are worth using with a model on a labelled corpus."""
