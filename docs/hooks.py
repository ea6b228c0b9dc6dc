"""Fits the pages to the site.

- A link to a file outside of docs/ is shown as its text alone. On the project's page such links
  lead to the file; the site holds the pages only. A link that leads nowhere within docs/ still
  fails the build.
- The notebooks, which lie beside docs/, become pages, and links to them lead there. So do the files
  that a repository has at its top for people who contribute.
- A picture that has a variant for dark pages, ``NAME-dark.svg``, is shown in the page's scheme.
"""

import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]*\)")
_SVG = re.compile(r"!\[([^\]]*)\]\(([\w/]+)\.svg\)")
_TOP = {
    f"{name}.md": f"{name.lower()}.md" for name in ("CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")
}


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files, config, **_: object):
    """Called by MkDocs when it has listed docs/."""
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        files.append(
            File(path.as_posix(), str(Path.cwd()), config.site_dir, config.use_directory_urls)
        )
    for name, page in _TOP.items():
        text = Path(name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, target in _TOP.items():
            text = text.replace(f"]({other})", f"]({target})")
        text = text.replace("](LICENSE)", "](../LICENSE)")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page, config, **_: object) -> str:
    """Called by MkDocs for every page."""

    def in_both_schemes(match: re.Match) -> str:
        text, name = match.groups()
        if not Path(config.docs_dir, f"{name}-dark.svg").exists():
            return match[0]
        return f"![{text}]({name}.svg#only-light)\n![{text}]({name}-dark.svg#only-dark)"

    markdown = markdown.replace("](../notebooks/", "](notebooks/")
    return _SVG.sub(in_both_schemes, _OUTSIDE.sub(r"\1", markdown))
