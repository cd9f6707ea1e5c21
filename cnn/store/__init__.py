"""The artifact store: keys, refs, manifests, leases, and the layout of its folders."""
