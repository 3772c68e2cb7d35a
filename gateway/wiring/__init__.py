"""How the composition root builds what it is made of, from the settings: each is open while its block runs."""
