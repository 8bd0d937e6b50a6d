"""The bundled model: synthetic language, speech, training and held-out sets. Never imports ray."""
