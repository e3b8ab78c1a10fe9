"""What stages hand on to each other: images, tasks, features, weights, results, costs."""
