"""Many writers at a time, and a checker of what became of their writes."""
