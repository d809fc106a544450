"""What a training leaves to read."""
