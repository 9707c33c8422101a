"""Object detection: boxes of objects in images, and their classes."""
