"""Many trainings, chosen by Optuna; the files that nothing beats."""
