"""The files that an export to Hugging Face carries: plain torch and transformers, no blankfill.

`blankfill export --to hf` copies them as they stand, so each must work without the others of
blankfill; `blankfill.interop.hf` registers the same classes where blankfill is installed.
"""
