"""Two models on the same images: which filters match, which predictions changed."""
