"""The bundled model and speech, as data."""

from pathlib import Path

SPEECH = Path(__file__).parent / "speech"
