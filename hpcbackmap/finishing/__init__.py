"""What happens to a whole structure after the chain; each step is a function of that structure alone."""
