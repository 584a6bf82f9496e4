"""The whole job on loopback SSH hosts inside this process: no root, no Docker, no account."""
