"""What the data plane costs beside a model, and how busy it keeps one."""
