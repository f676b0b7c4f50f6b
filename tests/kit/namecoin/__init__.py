"""A Namecoin regtest chain for tests: recorded blocks, mined blocks, and a daemon's face."""
