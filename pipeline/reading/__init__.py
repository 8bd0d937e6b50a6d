"""A shard of the plan to 16 kHz windows; decoding happens in a child that may crash, hang or swell."""
