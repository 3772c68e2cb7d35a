"""The use cases, and how writes are made safe."""
