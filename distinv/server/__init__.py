"""One server without I/O: consensus, clients, store and links put together."""
