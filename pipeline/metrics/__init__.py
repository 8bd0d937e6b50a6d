"""What is measured: word errors, speed, money, and the row of a shard."""
