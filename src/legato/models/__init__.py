"""What happens next: models of an environment's dynamics."""
