"""What a pass costs a device besides computing: bytes and calls across its border."""
