"""What a policy is worth: return at every decision frequency, FAS, delays, latency, with intervals over seeds."""
