"""The released `Trainer` on an export: adding up gradients of small batches is one large batch.

    python -I clean_training.py EXPORT

Needs accelerate beside transformers. A difference is an AssertionError.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import sys
import tempfile
import warnings

import torch

TEXTS = ["a [MASK] c[MASK]", "[MASK]", "the old [MASK] reads", "young [MASK] sees [MASK] in town",
         "river[gMASK]", "x [MASK]", "books [MASK] water", "she sells [sMASK] bread"]  # fmt: skip
FILLS = [[" b", " d"], ["x"], [" fox"], [" dog", " the water"], [" of bread and of books."], [" y"],
         [" and"], [" some old"]]  # fmt: skip


def main(folder):
    if importlib.util.find_spec("accelerate") is None:
        print("accelerate is not installed")
        return
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    whole = tokenizer.training_inputs(TEXTS, FILLS)
    rows = [{name: value[i] for name, value in whole.items()} for i in range(len(TEXTS))]
    check_loss(model.eval(), whole, rows)
    results = {
        (batch, parts): train(model, rows, batch, parts, transformers)
        for batch, parts in ((8, 1), (4, 2), (1, 8), (3, 3))
    }
    first = results[8, 1]
    with torch.no_grad():
        assert math.isclose(first["loss"], float(model(**whole).loss), rel_tol=1e-4), first
    assert math.isclose(first["evaluated"], first["after"], rel_tol=1e-4), first
    for way, result in results.items():
        assert math.isclose(result["loss"], first["loss"], rel_tol=1e-4), (way, results)
        assert math.isclose(result["norm"], first["norm"], rel_tol=1e-3), (way, results)
        assert math.isclose(result["after"], first["after"], rel_tol=1e-3), (way, results)
    print(transformers.__version__, first)


def check_loss(model, whole, rows):
    """The loss is a sum over the targets, by their number or by the one that is given."""
    with torch.no_grad():
        output = model(**whole)
        targets = whole["labels"][:, 1:]
        scores = output.logits[:, :-1].float().log_softmax(-1)
        count = int((targets != -100).sum())
        total = -sum(
            float(scores[b, t, targets[b, t]])
            for b, t in (targets != -100).nonzero().tolist()
        )  # fmt: skip
        assert math.isclose(float(output.loss), total / count, rel_tol=1e-5)
        for number in (7, torch.tensor(7), torch.tensor([7]), torch.tensor(7.0)):
            loss = model(**whole, num_items_in_batch=number).loss
            assert loss.shape == ()
            assert math.isclose(float(loss), total / 7, rel_tol=1e-5)
        parts = [
            float(model(**{k: v[None] for k, v in row.items()}, num_items_in_batch=count).loss)
            for row in rows
        ]
        assert math.isclose(sum(parts), total / count, rel_tol=1e-4)
        nothing = {**whole, "labels": torch.full_like(whole["labels"], -100)}
        assert float(model(**nothing).loss) == 0


def train(model, rows, batch, parts, transformers):
    """Take one step, in `parts` batches of `batch` rows: its loss, gradient norm, and the next."""
    model = copy.deepcopy(model).train()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, gradient_accumulation_steps=parts,
            per_device_eval_batch_size=batch, max_steps=1, logging_steps=1, report_to=[],
            learning_rate=1e-3, optim="sgd", lr_scheduler_type="constant", max_grad_norm=1e9,
            use_cpu=True, save_strategy="no", disable_tqdm=True, seed=1,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows
        )
        trainer.train()
        logged = next(line for line in trainer.state.log_history if "loss" in line)
        evaluated = trainer.evaluate()["eval_loss"]
        whole = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        with torch.no_grad():
            after = float(model.eval()(**whole).loss)
    return {"loss": logged["loss"], "norm": logged["grad_norm"], "after": after,
            "evaluated": evaluated}  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(sys.argv[1])
