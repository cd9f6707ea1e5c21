"""Files: atomic writes, strict JSON, remembered digests."""
