"""Decision Transformer, Online Decision Transformer and its fine-tuning."""
