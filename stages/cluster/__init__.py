"""Stages on other processes and other machines: programs, what a node does, and what it gets. Ray sends this code."""
