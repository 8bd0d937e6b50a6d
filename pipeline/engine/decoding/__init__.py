"""Tokens out of encoded windows: the rules, the loop, and whether its text is believed."""
