"""Speed of the engine and of its peers: random weights, equal work, interleaved rounds. Needs no Ray."""
