"""The engine beside other programs: equal work, interleaved rounds."""
