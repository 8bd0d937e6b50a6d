"""Speed of the engine, of its peers and of the data plane."""
