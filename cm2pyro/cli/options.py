"""Options that several commands have, and values that they share."""

import click

set_ = click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a key of the config; may be repeated.")
device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
draws = click.option("--draws", type=click.IntRange(min=1), default=100, show_default=True, help="Draws of the latents.")
split = click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only these rows; by default every row.")
trust_code = click.option("--trust-code", is_flag=True, help="Import classes of other packages that RUN names; they are code, which runs.")


def whole_numbers(option: str, text: str, example: str) -> list[int]:
    """`1,2,3`. Raises UsageError."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
        if not numbers:
            raise ValueError("none")
        return numbers
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: not a list of whole numbers; write for example {option} {example}.") from error
