"""Elements of HTML and SVG, of which a page is built: text in them is escaped where they are written, always."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from inpaint_fast._names import printable

Element = ElementTree.Element


def element(tag: str, *children: Element | str, **attributes: object) -> Element:
    """An element with these children, texts and elements in any order.

    Args:
        tag: its name.
        children: in their order.
        attributes: class_ is class, data_top is data-top; those that are None are left out.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            made.set(name.rstrip("_").replace("_", "-"), text)
    for child in children:
        if not isinstance(child, str):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def group(tag: str, children: Iterable[Element | str], **attributes: object) -> Element:
    """`element` with the children in one argument."""
    return element(tag, *children, **attributes)


def html(root: Element) -> str:
    """As text. Characters that a page cannot have, and those that turn the writing round, are written as escapes."""
    return printable(ElementTree.tostring(root, encoding="unicode", method="html"), keep="\n")
