"""Files: atomic writes, strict JSON, cached digests."""
