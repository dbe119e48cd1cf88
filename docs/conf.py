"""How Sphinx makes the pages: `make docs` builds them into docs/_build/html.

The sources read well without Sphinx, too. What only Sphinx needs is made here: the contents from the lists of
README.md, and addresses for links that leave this directory.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
import pydoc
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
TOP = HERE.parent
sys.path.insert(0, str(TOP / "python"))

PACKAGE = tomllib.loads((TOP / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]

project = "wtio"
author = "The authors of wtio"
copyright = author
version = release = PACKAGE["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "index"
# README.md is for those who read the directory; index.md shows its lists.
exclude_patterns = ["_build", "README.md"]

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3
# A block without a language is output or a command.
highlight_language = "none"

autodoc_typehints = "description"
# What a function returns is said of all, not only of those whose docstring has a section for it.
autodoc_typehints_description_target = "documented_params"
# A default is shown as it is written: the repr of some objects says nothing.
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_use_rtype = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"wtio {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#5fd3a5", "color-brand-content": "#5fd3a5"},
}

# Pages are made from what is written here, and by the packages that are pinned there.
_MAKERS = (Path(__file__), TOP / "requirements-dev.txt")

# Only what is typed after a prompt is copied.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!\[[^\]]*)?\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_INCLUDE = re.compile(
    r'^```\{include\} (\S+)\n(?::start-after: "?(.+?)"?\n)?(?::end-before: "?(.+?)"?\n)?```$', re.MULTILINE
)


def _included() -> dict[Path, str]:
    """The pages that are files from elsewhere, by file."""
    return {
        (page.parent / match[1]).resolve(): page.relative_to(HERE).as_posix()
        for page in (HERE / "project").glob("*.md")
        if (match := _INCLUDE.search(page.read_text(encoding="utf-8")))
    }


def _with_links(text: str, directory: Path, page: Path) -> str:
    """Lead links to other files to the page that has them, or else to the repository.

    Args:
        text: Text of a page.
        directory: From where its links lead.
        page: The page.
    """
    pages = _included() | {TOP / "README.md": "index.md", HERE / "README.md": "index.md"}

    def link(match: re.Match[str]) -> str:
        image, path, anchor = match[1], (directory / match[2]).resolve(), match[3] or ""
        if image:
            return f"{image}]({os.path.relpath(path, page.parent)})"
        if path in pages:
            return f"](/{pages[path]}{anchor})"
        if path.is_relative_to(HERE) and path.suffix == ".md":
            return f"](/{path.relative_to(HERE).as_posix()}{anchor})"
        kind = "tree" if path.is_dir() else "blob"
        return f"]({PACKAGE['repository']}/{kind}/main/{path.relative_to(TOP).as_posix()}{anchor})"

    parts = _CODE.split(text)
    parts[::2] = [_LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _contents() -> str:
    """A tree of contents for each list of README.md, under its heading."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    trees = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption = section.splitlines()[0]
        pages = [
            f"/{_included().get((HERE / target).resolve(), target)}"
            for target in re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", section, re.MULTILINE)
        ]
        trees.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]))
    return "\n".join(trees)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))

    def include(match: re.Match[str]) -> str:
        file, (start, end) = (page.parent / match[1]).resolve(), match.groups()[1:]
        # Its own text may have changed although the page did not.
        app.env.note_dependency(str(file))
        text = file.read_text(encoding="utf-8")
        if start:
            text = text[text.index(start) + len(start) :]
        if end:
            text = text[: text.index(end)]
        return _with_links(text, file.parent, page)

    # What is included has links of its own, so the text around it is dealt with first.
    text = _INCLUDE.sub(include, _with_links(source[0], page.parent, page))
    if name == root_doc:
        app.env.note_dependency(str(HERE / "README.md"))
        text = text.replace("<!-- contents -->", _contents())
    source[0] = text


def _written_at(name: str) -> list[str]:
    """What stands below a constant in the module that makes it; the object itself only has what its type says."""
    package, _, constant = name.rpartition(".")
    for module in sorted(each for each in sys.modules if f"{each}.".startswith(f"{package}.")):
        if not str(getattr(sys.modules[module], "__file__", "")).endswith(".py"):
            continue
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        if ("", constant) in analyzer.attr_docs:
            return list(analyzer.attr_docs["", constant])
    return []


# A colon that napoleon is not to see: it takes what is before one in the first line of an attribute for a type.
_COLON = "\ue000"


def _prepare(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Before napoleon reads it, mend what it and autodoc would take for something else."""
    if kind == "data":
        lines[:] = _written_at(name) or lines
    if kind in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(":", _COLON)


_PAGE = re.compile(r"\bdocs/([\w-]+)\.md\b")
_NAME = re.compile(r"``([A-Z_a-z][\w.]*)(\(\))?``")


def _document(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Say the range of a field, and make references of names of ours."""
    import wtio

    lines[:] = [line.replace(_COLON, ":") for line in lines]
    owner, _, field = name.rpartition(".")
    if kind == "attribute" and (cls := pydoc.locate(owner)) and dataclasses.is_dataclass(cls):
        its_range = {one.name: one.metadata.get("range") for one in dataclasses.fields(cls)}.get(field)
        if its_range is not None:
            lines += ["", f"Range: {its_range}.", ""]

    def reference(match: re.Match[str]) -> str:
        first, _, rest = match[1].removeprefix("wtio.").partition(".")
        if first not in wtio.__all__ or (rest and not hasattr(getattr(wtio, first), rest)):
            return match[0]
        return f":py:obj:`{match[1]}{match[2] or ''} <wtio.{match[1].removeprefix('wtio.')}>`"

    lines[:] = [_PAGE.sub(r":doc:`/\1`", _NAME.sub(reference, line)) for line in lines]


# Classes of which wtio makes the objects, so that nobody needs to know how.
_MADE_BY_WTIO = {
    *("WebTransportSession", "WebTransportStream", "WebTransportReceiveStream", "WebTransportSendStream", "Server"),
    *("Connector", "SessionRequest", "HttpRequest", "IncomingStreams", "IncomingDatagrams", "Subscription"),
    *("MessageReader", "BusConnection"),
}


def _sign(app: Sphinx, kind: str, name: str, thing: object, options: object, *signature: str) -> tuple[str, str] | None:
    """Leave out constructors that are not for users, and what those of dataclasses take: the fields, which follow."""
    is_enumeration = isinstance(thing, type) and issubclass(thing, enum.Enum)
    is_hidden = dataclasses.is_dataclass(thing) or is_enumeration or name.rpartition(".")[2] in _MADE_BY_WTIO
    return ("", "") if kind == "class" and is_hidden else None


# A type variable, or an alias, which is private to its module. What is not in the reference is shown by its bare name.
_PRIVATE_TYPE = re.compile(r"~?[\w.]*\b_([A-Z]\w*)")


def _mend_types(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Before autodoc writes types into a description, mend those that would mislead."""
    for types in app.env.current_document.autodoc_annotations.values():
        for name, text in list(types.items()):
            if text.rpartition(".")[2] == "Any":
                # The text beside it says more.
                del types[name]
            else:
                # Sphinx puts the dots of any arguments into brackets.
                types[name] = _PRIVATE_TYPE.sub(r"\1", text.replace("[[...], ", "[..., "))


def _mend_signatures(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Show type variables of overloads, which autodoc writes there, as in descriptions, and error codes as RFCs do."""
    for signature in doctree.findall(addnodes.desc_signature):
        for text in list(signature.findall(nodes.Text)):
            if _PRIVATE_TYPE.fullmatch(text):
                text.parent.replace(text, nodes.Text(_PRIVATE_TYPE.sub(r"\1", text)))
            elif str(signature.get("fullname")).startswith("ErrorCodes.") and text.isdecimal():
                text.parent.replace(text, nodes.Text(hex(int(text))))


# Behind these, a long name in a table may go on in the next line, but not behind the first character of a name, nor
# before as little as the end of a file's name.
_SEAM = re.compile(r"(?<=[^\W_][._/:=(\[])(?=\w)(?!\w{1,3}\b)")


def _lay_out(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Let names in tables break where people would break them, and give cells with much text room to be read."""
    for block in doctree.findall(nodes.literal_block):
        # What is not as it was written is taken for something else than code, and gets no colours.
        if block.rawsource == block.astext():
            block.rawsource = block.rawsource.rstrip("\n")
            block.children = [nodes.Text(block.rawsource)]
        # Docstrings have no way to say that a block is Python. This takes for it what can be read as such.
        if name.startswith("reference/") and block.get("language") == "none":
            block["language"] = "default"
    for entry in doctree.findall(nodes.entry):
        size = len(entry.astext())
        if size > 24:
            entry["classes"].append("longest" if size > 80 else "long")
        elif size <= 12:
            entry["classes"].append("short")
        for literal in list(entry.findall(nodes.literal)):
            first, *rest = _SEAM.split(literal.astext())
            literal.children = [nodes.Text(first)]
            for part in rest:
                literal += [nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]


def _keep_warning(app: Sphinx, failure: Exception | None) -> None:
    """If there were warnings, have the next build read all pages again: Sphinx warns only of pages that it reads."""
    if app._warncount:  # noqa: SLF001 - there is no public number
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def setup(app: Sphinx) -> None:
    """Connect what makes the pages."""
    # Sphinx makes all pages anew if such a setting has changed. Of code it would notice nothing.
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _MAKERS)).hexdigest()
    app.add_config_value("digest_of_makers", digest, "env", types=str)
    app.connect("source-read", _read)
    app.connect("doctree-resolved", _lay_out)
    app.connect("doctree-resolved", _mend_signatures)
    app.connect("autodoc-process-docstring", _prepare, priority=400)
    app.connect("autodoc-process-docstring", _document)
    app.connect("autodoc-process-signature", _sign)
    app.connect("object-description-transform", _mend_types, priority=400)
    app.connect("build-finished", _keep_warning)
