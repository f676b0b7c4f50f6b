"""Manual pages and shell completions, made from what the programs say of themselves.

    python -m manual DIRECTORY      man pages, completions for bash and zsh

Theory of operation
    A command's page is made from its argparse parser, the page of the settings from the
    configuration's schema: what `--help` and the sample file say is what the pages say,
    and nothing is described twice.  Only what no parser knows is written here: what a
    program is for, its signals and its files.

    Pages are in the man(7) macros.  Their date is that of SOURCE_DATE_EPOCH, so that two
    builds of one source are equal.
"""
