"""The files that an export to Hugging Face carries: plain torch and transformers, no blankfill.

`blankfill export --to hf` copies them unchanged, so each must work without the rest of
blankfill; `blankfill.interop.hf` registers the same classes where blankfill is installed.
"""
