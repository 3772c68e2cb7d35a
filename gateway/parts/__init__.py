"""What the composition root is put together from, each built from the settings and open while its block runs."""
