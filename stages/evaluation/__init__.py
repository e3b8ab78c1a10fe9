"""Metrics, intervals, comparisons and the verdict: numbers and sentences, no drawing."""
