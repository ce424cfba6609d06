"""The native core behind its C ABI, and all that speaks to it. Only modules of this package import cffi."""
