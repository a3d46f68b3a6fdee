"""The forms of the C that tests go through, those of this processor and no others."""

import pytest

from blankfill.kernels import forms
from blankfill.kernels.native import load_native

FORMS = [form.name for form in forms.FORMS]


def native_form(name=None):
    """A form by name, or the best; without it there is nothing to test."""
    if name is not None and name not in [form.name for form in forms.forms_here()]:
        pytest.skip(f"this processor has no {name}")
    if (native := load_native(name)) is None:
        pytest.skip("no C compiler that knows it here, or no sgemm in torch's library")
    return native
