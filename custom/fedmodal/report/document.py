"""What a written report is made of: sections with text, tables and charts, whatever they are written as."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of finished text.

    Attributes:
        caption: what it shows.
        headings: of the columns; the first column names the row.
        rows: a text a column.
        total: whether the last row sums the others up.
        folded: whether a reader must open it on a page.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: bool = False
    folded: bool = False

    def is_text(self, column: int) -> bool:
        """Whether a column holds words rather than figures."""
        return column == 0 or any(row[column][:1].isalpha() for row in self.rows)


@dataclass(frozen=True)
class Chart:
    """A drawing as inline SVG, and in words what is drawn: every figure in it is in a table too."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: for links.
        title: its heading.
        text: paragraphs.
        charts: drawings; Markdown leaves them out.
        tables: in order.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
