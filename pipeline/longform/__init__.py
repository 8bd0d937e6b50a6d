"""Long recordings: windows at their places, through the engine, each in its language, no speech left out."""
