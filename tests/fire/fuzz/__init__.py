"""Fuzz targets: every codec that reads what others wrote, each with its closed set of errors.

    python -m tests.fire.fuzz                       what targets there are
    python -m tests.fire.fuzz socks5-server -s 300  one of them, guided by coverage (atheris)
    python -m tests.fire.fuzz --all -s 60           all, a minute each

One module per family of codecs; `registry` lists their targets.
"""
