"""Write the files that are made from the settings: ``python -m pyrope.config --markdown``."""

from __future__ import annotations

import sys

import click

from pyrope.config.render import default_toml, markdown


@click.command()
@click.option("--markdown", "form", flag_value="markdown", help="docs/settings.md")
@click.option("--toml", "form", flag_value="toml", help="configs/pyrope.toml")
def main(form: str | None) -> None:
    """Write the settings' reference page or their commented file to standard output."""
    makers = {"markdown": markdown, "toml": default_toml}
    if form is None:
        raise click.UsageError("one of --markdown and --toml is needed")
    sys.stdout.write(makers[form]())


if __name__ == "__main__":
    main()
