"""A stand-in for TensorFlow Serving: the real messages, the real SavedModel, another server."""
