"""Using a trained model of the study: the model as a whole, and the commands around it."""
