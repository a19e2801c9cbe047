"""Requests in, pictures out: the only floor that touches the device, in threads of its own."""
