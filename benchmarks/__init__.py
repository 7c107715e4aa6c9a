"""Speed: the service beside a bare function on the same server, and its parts by themselves."""
