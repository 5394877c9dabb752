"""The command ``doctor``."""

import dataclasses
import json

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, print_rows


def doctor(json_: options.Json = False) -> None:
    """Examine this installation: versions, device, threads, memory, caches, optional parts.

    Prints one fact per line, name and value separated by a tab. What is wrong is named on stderr
    with what to do, and the command exits with 1.

    Example: crowdcount doctor
    """
    from crowdcount.workflows.doctor import examine

    findings = examine()
    if json_:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        print_rows((finding.name, finding.value) for finding in findings)
    problems = [finding for finding in findings if finding.problem]
    for finding in problems:
        log.error("%s: %s", finding.name, finding.problem)
        log.error("  next step   %s", finding.next_step)
    if problems:
        raise typer.Exit(1)
