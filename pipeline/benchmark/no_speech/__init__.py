"""How often a text is invented where nobody speaks."""
