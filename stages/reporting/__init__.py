"""Figures and pages of the report; every number comes from the stages before."""
