"""What a person runs: each module here is `python -m jobs.NAME` and `earshard NAME`."""
