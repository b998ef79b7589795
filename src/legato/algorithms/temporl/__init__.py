"""TempoRL: an action, and for how long."""
