"""One Whisper model: its files, its numbers, its tensors, encoder and decoder."""
