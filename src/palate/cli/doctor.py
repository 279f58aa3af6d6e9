"""`palate doctor`: what this machine can run."""

from __future__ import annotations

from dataclasses import asdict

import typer

from palate.cli.output import DataOption, Format, FormatOption, emit


def doctor(data: DataOption = None, form: FormatOption = Format.TABLE) -> None:
    """Check versions, device, memory, disk, data and the demo's model.

    Exit code 1 where something needed is missing. Example: [bold]palate doctor --format json[/bold]
    """
    from palate.doctor import examine

    findings = examine(data)
    emit((asdict(finding) for finding in findings), form, "This machine")
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)
