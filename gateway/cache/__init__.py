"""The optional read-through cache: bounded, coherent with writes, and honest about age."""
