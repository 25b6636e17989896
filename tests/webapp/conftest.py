"""The page with the embedded checkpoint, which the modules of tests share."""

from collections.abc import Iterator

import pytest
from page_server import page_server


@pytest.fixture(scope="session")
def embedded_page(tmp_path_factory) -> Iterator[str]:
    """Serve a page with the embedded checkpoint, in a process of its own; give its address."""
    folder = tmp_path_factory.mktemp("embedded")
    with page_server(folder, "--labels", folder / "labels") as page:
        yield page.address
