"""The once-per-model work of `maskprobe tune`."""
