"""The artifact store: steps, keys, refs, manifests, tables, run folders."""
