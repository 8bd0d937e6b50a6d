"""How sparse a job may be, and on which evidence; without Ray."""
