"""The data of a study on its way: sources, prepared images, tasks, features."""
