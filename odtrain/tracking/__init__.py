"""One MLflow run a job, safe on disk before it is sent."""
