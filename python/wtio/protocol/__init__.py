"""HTTP/3 and WebTransport in pure Python: no socket, no clock, no event loop. Bytes in, outputs and events out."""
