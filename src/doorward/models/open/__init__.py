"""Weights of others: own architectures, Keras, input conventions."""
