"""What several test folders share: real parts, started and ended. Imported as ``support`` (see pytest's pythonpath)."""
