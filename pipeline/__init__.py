"""earshard: bulk transcription of audio archives on a Ray cluster."""

__version__ = "0.1.0"
