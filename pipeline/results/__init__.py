"""What is made of committed outputs, without a model."""
