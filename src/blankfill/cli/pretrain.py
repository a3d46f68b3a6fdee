"""How the end of a pretraining run looks in a terminal."""

from __future__ import annotations

from blankfill.api.pretrain import PretrainResult
from blankfill.cli.command import own_command
from blankfill.cli.console import Answer
from blankfill.disk.names import resume_option, shell_word

__all__ = ["print_pretrain"]


def print_pretrain(result: PretrainResult, console: Answer) -> None:
    """Print where the run stands and what can be done with it."""
    loss = result.metrics.get("loss_nats")
    shown = "" if loss is None else f", training loss {loss:.3f} nats"
    console.print(f"{result.run}: step {result.step:,} of {result.steps:,}{shown}")
    if result.validation:
        step = int(result.validation["step"])
        of = "before any training" if step == 0 else f"after step {step:,}"
        console.print(f"validation {of}:")
    for key, value in result.validation.items():
        if key.startswith("validation_"):
            console.print(f"  {key} {value:.3f}")
    if result.best_step is not None and result.best_step != result.step:
        best = result.best_validation_loss_nats
        console.print(f"  lowest after step {result.best_step:,}: {best:.3f}")
    going_on = f"{shell_word(own_command())} pretrain {resume_option(result.run)}"
    if not result.finished:
        console.print_command("stopped before the last step; to go on:", going_on)
    elif result.began_at == result.steps:
        more = f"{going_on} --train.steps {2 * result.steps}"
        console.print_command("it had done all its steps; to give it more:", more)
    else:
        console.print(f"try: {own_command()} fill {result.run} "
                      '"A text with a [MASK] in it."')  # fmt: skip
