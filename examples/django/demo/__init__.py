"""A small Django project without a database."""
