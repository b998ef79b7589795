"""Decision S4 and its two fine-tunings."""
