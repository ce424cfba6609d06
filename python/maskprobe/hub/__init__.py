"""Models by name: the catalogue, the hub and its cache, and the model that comes with the package."""

from .sources import CachedModel, cached_models, download_matching, resolve_model

__all__ = ["CachedModel", "cached_models", "download_matching", "resolve_model"]
