"""Against real servers of others: Airflow, MLflow."""
