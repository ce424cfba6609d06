"""What drafts are decided by before a generation: costs of rows, start vectors of masks, what tuning has stored."""
