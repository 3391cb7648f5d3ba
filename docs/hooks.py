"""What mkdocs calls while it builds: adds the generated pages, and lists decisions by date."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from reference_pages import command_line, decisions, metrics, recipe, rest_api, settings

GENERATED = {
    "reference/command-line.md": command_line.text,
    "reference/rest-api.md": rest_api.text,
    "reference/settings.md": settings.text,
    "reference/recipe.md": recipe.text,
    "reference/metrics.md": metrics.text,
}
DECISIONS = "decisions/index.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the dated decisions to the navigation, below their list."""
    sections = [entry for entry in config.nav or [] if isinstance(entry, dict)]
    for pages in (section for entry in sections for section in entry.values()):
        if DECISIONS in pages:
            pages += [f"decisions/{one.file}" for one in decisions.found_in(_folder(config))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file holds."""
    for path, text in GENERATED.items():
        files.append(File.generated(config, path, content=text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the list of decisions to the page that introduces them."""
    if page.file.src_uri == DECISIONS:
        return f"{markdown}\n\n{decisions.table(_folder(config))}\n"
    return markdown


def _folder(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir) / Path(DECISIONS).parent
