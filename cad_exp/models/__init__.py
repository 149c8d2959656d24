"""The pipeline's wrapper, families of denoisers, loading, memory."""
