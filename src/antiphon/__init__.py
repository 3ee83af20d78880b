"""Encoder-decoder models from a file of pairs: trained, measured, served."""
