"""What evaluate and report share: metrics, comparisons, verdict, sanity checks, costs; figures and the page."""
