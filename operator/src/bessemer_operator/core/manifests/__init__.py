"""Builders of the Kubernetes objects that an attempt consists of. They return plain documents and decide nothing."""
