"""HTML pages of this project's looks: templates, style and tables of text."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text below a header; the first column is a name."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def page(template: str, **values: Any) -> str:
    """A page of this project's looks: the template is given the values and its style."""
    environment = _environment()
    style = environment.get_template("report.css").render()
    return environment.get_template(template).render(
        style=Markup(style),  # ours, and without a variable
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        **values,
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
