"""Registers blankfill's models with transformers when it is imported.

    import blankfill.interop.hf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path)

The classes are those that an export carries, so the same folder loads with `trust_remote_code=True`
where blankfill is not installed. Needs transformers: `pip install 'blankfill[hf]'`.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from blankfill.interop.hf_files.configuration_blankfill import BlankfillConfig
from blankfill.interop.hf_files.modeling_blankfill import BlankfillForCausalLM, BlankfillModel
from blankfill.interop.hf_files.tokenization_blankfill import BlankfillTokenizer

__all__ = ["BlankfillConfig", "BlankfillForCausalLM", "BlankfillModel", "BlankfillTokenizer"]

AutoConfig.register("blankfill", BlankfillConfig, exist_ok=True)
AutoModel.register(BlankfillConfig, BlankfillModel, exist_ok=True)
AutoModelForCausalLM.register(BlankfillConfig, BlankfillForCausalLM, exist_ok=True)
AutoTokenizer.register(BlankfillConfig, slow_tokenizer_class=BlankfillTokenizer, exist_ok=True)
