"""What the stage kinds share."""
