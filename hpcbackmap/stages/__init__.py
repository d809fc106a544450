"""The conditional VAEs, their ELBO and artifacts."""
