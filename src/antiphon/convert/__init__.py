"""Trained models as other libraries read them: one file a foreign format."""
