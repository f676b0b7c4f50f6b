"""The long runs: fuzzing, soak, chaos, leaks at the packet level, linkability.

Each is a module with a command line of its own (`python -m tests.fire.soak --minutes 30`);
`make fire` runs all of them.  What can be shown of them in seconds is in the test modules
beside them, so that they cannot rot.
"""
