"""Optical-flow estimators behind one protocol; `base` holds the protocol and the registry."""
