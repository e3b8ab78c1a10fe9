"""Building networks: backbones with their preprocessing inside, cuts, heads, and what is frozen."""
