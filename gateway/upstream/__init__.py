"""The REST API: eight operations, credentials, and what its answers mean."""
