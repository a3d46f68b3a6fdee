"""Ranks that stay alive for all tests of this folder."""

import pytest

from parallel.crew import Crew


@pytest.fixture(scope="session")
def crew(tmp_path_factory):
    """Up to four ranks."""
    crew = Crew(tmp_path_factory.mktemp("ranks"), 4)
    yield crew
    crew.close()


@pytest.fixture(scope="session")
def large_crew(tmp_path_factory):
    """Up to eight ranks."""
    crew = Crew(tmp_path_factory.mktemp("ranks"), 8)
    yield crew
    crew.close()
