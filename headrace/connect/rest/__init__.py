"""The REST API of a Connect worker, as Kafka Connect's: port 8083, errors as {"error_code": N, "message": "…"}."""
