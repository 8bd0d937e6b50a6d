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


def page(template: str, *, css: str = "report.css", script: str | None = None, **values: Any) -> str:
    """A page of this project's looks: the template is given the values, its style, and its script if any."""
    environment = _environment()
    inline = {"style": css} | ({"script": script} if script else {})
    for name, file in inline.items():
        text = environment.get_template(file).render()
        values[name] = Markup(text)  # ours, and without a variable
        values[f"{name}_hash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
