"""`blankfill.load`: once loaded, for many calls; and what the process of the caller keeps."""

import subprocess
import sys
import threading

import pytest
import torch

import blankfill
from blankfill import api
from blankfill.errors import BlankfillError, ConfigError, RequestError
from blankfill.generate import LanguageModel
from blankfill.model.masks import DenseMask
from blankfill.runs import newest_checkpoint
from blankfill.runs.tensors import load_tensors, write_tensors
from interop.runs import ARCHITECTURES, make_run

TEXTS = ["the [MASK] fox", "a [MASK] and [MASK] b", "\u4eba[sMASK]\u5c71", "[gMASK]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tokenizer_folder):
    return make_run(tmp_path_factory.mktemp("load") / "run", tokenizer_folder)


@pytest.fixture(scope="module")
def lm(run):
    return blankfill.load(str(run))


def test_one_text_has_one_answer_and_several_a_list(run, lm):
    one = lm.fill(TEXTS[0], max_new_tokens=8)
    assert one.text.startswith("the")
    assert lm.fill([TEXTS[0]], max_new_tokens=8) == [one]
    assert [item.prompt for item in lm.fill((t for t in TEXTS), max_new_tokens=8)] == TEXTS
    assert lm.fill([]) == lm.generate([]) == []
    assert list(api.fill(run, TEXTS, max_new_tokens=8).items) == lm.fill(TEXTS, max_new_tokens=8)
    assert lm.generate("a", max_new_tokens=8) == lm.generate(["a"], max_new_tokens=8)[0]
    again = api.generate(run, "a", max_new_tokens=8)
    assert list(again.items) == lm.generate(["a"], max_new_tokens=8)
    drawn = {"temperature": 2.0, "top_p": 0.9, "seed": 3, "num_candidates": 2}
    assert list(api.fill(run, TEXTS[0], **drawn).items) == [lm.fill(TEXTS[0], **drawn)]


def test_a_text_that_cannot_be_filled_is_told_alone_or_in_its_place(lm):
    with pytest.raises(RequestError, match="no blank"):
        lm.fill("nothing to fill")
    good, bad = lm.fill([TEXTS[0], "nothing to fill"])
    assert good.error is None
    assert "no blank" in bad.error
    for junk in (None, 3, b"a", [None], ["a [MASK]", 3], {"a": 1}, "\ud800 [MASK]"):
        for call in (lm.fill, lm.generate):
            with pytest.raises(BlankfillError):
                call(junk)
    for options in ({"temperature": "hot"}, {"seed": -1}, {"num_candidates": 0}, {"top_p": None}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            lm.fill(TEXTS[0], **options)
    with pytest.raises(TypeError):
        lm.fill(TEXTS[0], tempreature=1.0)


def test_threads_take_turns_and_get_what_each_text_gets_alone(lm):
    alone = {text: lm.fill(text, max_new_tokens=8) for text in TEXTS}
    found = []

    def work(text):
        found.extend((text, lm.fill(text, max_new_tokens=8)) for _ in range(4))

    threads = [threading.Thread(target=work, args=(text,)) for text in TEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 * len(TEXTS)
    assert all(item == alone[text] for text, item in found)


def test_a_call_waits_while_the_model_is_held(lm):
    done = threading.Event()
    thread = threading.Thread(target=lambda: (lm.fill(TEXTS[0], max_new_tokens=1), done.set()))
    with lm.lock:
        thread.start()
        assert not done.wait(0.2)
    thread.join()
    assert done.is_set()


def test_what_it_shows_of_itself_is_short(lm, run):
    weights = sum(p.numel() for p in lm.model.parameters())
    assert repr(lm) == f"LanguageModel('{run}', step 0, {weights:,} weights in float32 on cpu)"


def rounded(run, folder, dtype):
    """The same run, its tensors stored in another type."""
    import shutil

    from blankfill.runs import CheckpointState, read_state, write_state

    shutil.copytree(run, folder)
    checkpoint = newest_checkpoint(folder).path
    tensors = load_tensors(checkpoint / "model.safetensors")
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    written = write_tensors(checkpoint, "model", tensors)
    state = read_state(checkpoint)
    write_state(checkpoint, CheckpointState(step=state.step, files=written.files))
    return folder


def logits_of(lm):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(8, 400, (2, 24), generator=generator)
    positions = torch.arange(24).expand(2, 2, 24)
    mask = DenseMask(torch.ones(2, 24, 24, dtype=torch.bool))
    with torch.inference_mode(), lm.computing():
        return lm.model.logits(lm.model(tokens, positions, mask))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_stored_in_16_bits_is_kept_so_and_answers_as_in_32(
    architecture, dtype, tmp_path, tokenizer_folder
):
    of_32 = make_run(tmp_path / "run", tokenizer_folder, architecture)
    stored = rounded(of_32, tmp_path / "stored", getattr(torch, dtype))
    lm, wide = blankfill.load(stored), blankfill.load(stored, dtype="float32")
    for parameter in lm.model.parameters():
        assert parameter.dtype == (getattr(torch, dtype) if parameter.dim() > 1 else torch.float32)
    assert all(parameter.dtype == torch.float32 for parameter in wide.model.parameters())
    ours, theirs = logits_of(lm), logits_of(wide)
    assert ours.dtype == torch.float32
    # Rounding activations to bfloat16 would move these logits by 0.03 to 0.4.
    assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
    assert lm.fill(TEXTS, max_new_tokens=6) == wide.fill(TEXTS, max_new_tokens=6)
    asked = blankfill.load(of_32, dtype=dtype)
    matrices = dict(lm.model.named_parameters())
    assert all(
        torch.equal(matrix, matrices[name])
        for name, matrix in asked.model.named_parameters() if matrix.dim() > 1
    )  # fmt: skip


def test_evaluation_of_16_bits_scores_as_in_32(run, tmp_path):
    from blankfill.evaluate.blanks import score_items
    from blankfill.evaluate.items import BlankItem

    stored = rounded(run, tmp_path / "stored", torch.bfloat16)
    lm, wide = blankfill.load(stored), blankfill.load(stored, dtype="float32")
    tokens = lm.tokenizer.encode("the old fox reads books in the town")
    item = BlankItem(
        blank=None, before=tokens[:2], span=tokens[2:4], after=tokens[4:], shortened=False
    )
    for ours, theirs in zip(score_items(lm, [item]), score_items(wide, [item]), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_size_of_a_model_in_memory_is_that_of_its_file(run, tmp_path):
    stored = rounded(run, tmp_path / "stored", torch.float16)
    file = newest_checkpoint(stored).path / "model.safetensors"
    lm = LanguageModel.load(stored)
    held = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    vectors = sum(p.numel() for p in lm.model.parameters() if p.dim() == 1)
    assert held <= file.stat().st_size + 2 * vectors


@pytest.mark.parametrize("own", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("narrow_seconds", [0.5, 0.95, 2.0])
def test_a_cpu_multiplies_bfloat16_where_it_does_so_itself_and_sooner(
    own, narrow_seconds, tmp_path, tokenizer_folder, monkeypatch
):
    from blankfill.generate import loading

    wide = make_run(
        tmp_path / "run", tokenizer_folder, hidden_size=256, ffn_size=1024, num_layers=1
    )
    monkeypatch.setattr(loading, "lowest_precision", lambda device: own)
    seconds = [1.0, narrow_seconds]
    monkeypatch.setattr(loading, "_least_seconds", lambda work: work() is None or seconds.pop(0))
    quick = own == torch.bfloat16 and narrow_seconds == 0.5
    lm = blankfill.load(wide, dtype="bfloat16")
    assert lm.precision == (torch.bfloat16 if quick else torch.float32)
    assert logits_of(lm).dtype == lm.precision
    assert lm.fill(TEXTS, max_new_tokens=3)[0].blanks[0].probability > 0
    for dtype in ("float32", "float16"):
        assert blankfill.load(wide, dtype=dtype).precision == torch.float32


def test_a_model_of_our_own_is_kept_in_32_bits(lm):
    assert lm.dtype == lm.precision == torch.float32


HOST = """
import os, sys
import blankfill
assert not {"torch", "numpy"} & set(sys.modules), "import blankfill is instant"
assert "blankfill.api" not in sys.modules
import torch
torch.set_num_threads(3)
torch.manual_seed(7)
state, environment = torch.get_rng_state(), dict(os.environ)
import ctypes
opened, real = [], ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: opened.append(name) or real(name, *rest, **more)
lm = blankfill.load(sys.argv[1])
items = blankfill.api.fill(sys.argv[1], "the [MASK] fox").items
assert list(items) == [lm.fill("the [MASK] fox")]
lm.generate("the")
lm.score("the [MASK] fox", ["old"])
# torch's compiler, and what it takes seconds to load for it
assert not {"torch._dynamo", "sympy"} & set(sys.modules)
assert "libc.so.6" not in opened                  # where malloc's settings are made
assert torch.get_num_threads() == 3
assert torch.equal(torch.get_rng_state(), state)
assert dict(os.environ) == environment
assert blankfill.tune() == []                     # torch is loaded: too late, and nothing changed
assert dict(os.environ) == environment
assert blankfill.tune(threads=1) == ["1 threads"] and torch.get_num_threads() == 1
print("kept")
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_process_of_the_caller_is_left_as_it_is(run):
    done = python(HOST, str(run))
    assert done.stdout == "kept\n", done.stderr[-2000:]


def test_tuning_is_asked_for_and_does_what_the_command_line_does():
    code = (
        "import os, sys, blankfill\n"
        "told = ('MALLOC_', 'OMP_', 'GOMP_', 'ONEDNN_')\n"
        "for name in [n for n in os.environ if n.startswith(told)]:\n"
        "    del os.environ[name]\n"
        "os.environ.pop('BLANKFILL_TUNE', None)\n"
        "chosen = blankfill.tune()\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['GOMP_SPINCOUNT'], len(chosen))\n"
        "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    )
    done = python(code)
    assert done.stdout.split()[0] == "10000", done.stderr
    assert int(done.stdout.split()[1]) >= 2
    assert done.stdout.split()[2] == "64"
    with pytest.raises(ConfigError, match="threads"):
        blankfill.tune(threads=-1)
