"""What a network is made of. Modules work on any leading shape, so a batch needs no `vmap`."""
