"""Backbones: registry, building, preprocessing, cut layers, weights, fast inference."""
