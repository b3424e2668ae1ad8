"""A run as a model of lm-evaluation-harness, so that its tasks measure it as they measure others.

    python -m cs336lm.exchange.lm_eval run --model cs336lm --model_args run=runs/a --tasks hellaswag

is the harness's own command, with one model more; in Python, importing this module registers it::

    import cs336lm.exchange.lm_eval
    lm_eval.simple_evaluate("cs336lm", model_args={"run": "runs/a"}, tasks=["hellaswag"])

As everywhere in the harness: a text is scored after a prefix token (``<|endoftext|>``, after which
documents begin here), the token at a context's end is never scored, and what is longer than the
model's context loses its beginning, never its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401  (the harness registers its own only where none is known yet)
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from cs336lm.generation.engine import END_OF_TEXT, generate_ids
from cs336lm.generation.sampling import Sampler, SamplingParams
from cs336lm.training.devices import choose_device, choose_dtype
from cs336lm.training.run_directory import Which, load_run

_MAX_NEW_TOKENS = 256  # where a task does not say it
_BATCH_SIZE = 16


@register_model("cs336lm")
class RunLM(TemplateLM):
    """The model of a run, as the harness asks it.

    Args:
        run: the run directory; it must have a tokenizer with ``<|endoftext|>``.
        checkpoint: ``"best"``, ``"last"`` or the step of one that was kept.
        device: as for ``cs336lm generate``.
        dtype: of the weights.
        batch_size: texts at once, 16 if nothing is said; it changes memory and speed, not the
            figures.
        max_batch_size: not used; the harness passes it.
    """

    def __init__(
        self,
        run: str | Path,
        checkpoint: Which = "best",
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        # The harness's command says cuda:0 wherever nobody says anything.
        unasked = device == "cuda:0" and not torch.cuda.is_available()
        self._device = choose_device("auto" if unasked else device or "auto")
        _, model, tokenizer = load_run(Path(run), self._device, checkpoint)
        if tokenizer is None or END_OF_TEXT not in tokenizer.special_tokens:
            raise ValueError(
                f"{run} has no tokenizer with {END_OF_TEXT}: texts cannot be scored from their "
                "first token on"
            )
        self.model = model.to(choose_dtype(dtype, self._device))
        self.tokenizer = tokenizer
        # The harness may say "auto", or nothing.
        self.batch_size = int(batch_size or 0) if str(batch_size).isdigit() else _BATCH_SIZE

    @property
    def max_length(self) -> int:
        """The most tokens that the model looks at together."""
        return self.model.config.context_length

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document; the next begins after it."""
        token = self.tokenizer.token_to_id(END_OF_TEXT)
        assert token is not None  # checked above
        return token

    @property
    def tokenizer_name(self) -> str:
        """Tells apart what the harness keeps of different tokenizers."""
        return self.tokenizer.fingerprint

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text; nothing is added to them, whatever is asked."""
        return self.tokenizer.encode(string)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each text: every token of it is predicted once."""
        texts = [request.args[0] for request in requests]
        windows = [list(self._windows(text)) for text in texts]
        scores = iter(self._score([pair for pairs in windows for pair in pairs]))
        found = []
        for text, pairs in zip(texts, windows, strict=True):
            found.append(sum(next(scores)[0] for _ in pairs))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        """(context, what is predicted after it), side by side, the last as full as the others."""
        ids = self.tok_encode(text)
        for pair in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
            yield make_disjoint_window(pair)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        found = self._score([(context, continuation) for _, context, continuation in requests])
        for (key, _, _), score in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", key, score)
        return found

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): its log-likelihood, and whether it is the greedy one."""
        parts = [part for pair in enumerate(pairs) for part in self._parts(*pair)]
        parts.sort(key=lambda part: -len(part[1]))  # rows of a batch about as long
        sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
        for at in range(0, len(parts), self.batch_size):
            batch = parts[at : at + self.batch_size]
            scores = self._log_probabilities([(row, targets) for _, row, targets in batch])
            for (pair, _, _), (score, is_greedy) in zip(batch, scores, strict=True):
                sums[pair] += score
                greedy[pair] &= is_greedy
        return list(zip(sums, greedy, strict=True))

    def _parts(
        self, pair: int, ids: tuple[list[int], list[int]]
    ) -> Iterator[tuple[int, list[int], list[int]]]:
        """(pair, what the model reads, the tokens that its end predicts): one, but for long ones.

        A continuation of more tokens than the context is cut, so that each token has what comes
        before it in its window.
        """
        context, continuation = ids
        row = context + continuation
        for start in range(0, len(continuation), self.max_length):
            targets = continuation[start : start + self.max_length]
            end = len(context) + start + len(targets) - 1
            yield pair, row[max(0, end - self.max_length) : end], targets

    @torch.inference_mode()
    def _log_probabilities(
        self, batch: Sequence[tuple[list[int], list[int]]]
    ) -> list[tuple[float, bool]]:
        width = max(len(row) for row, _ in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        for place, (row, _) in enumerate(batch):
            ids[place, : len(row)] = torch.tensor(row)  # padded behind, where nothing looks
        hidden = self.model.hidden_states(ids.to(self._device))
        found = []
        for place, (row, targets) in enumerate(batch):
            # Logits of what is scored alone: those of whole windows would fill the memory.
            logits = self.model.logits(hidden[place, len(row) - len(targets) : len(row)])
            wanted = torch.tensor(targets, device=logits.device)
            scores = logits.double().log_softmax(-1).gather(-1, wanted.unsqueeze(-1))
            found.append((scores.sum().item(), bool((logits.argmax(-1) == wanted).all())))
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Continues each context until one of its stops, the end of the text, or the limit."""
        found = []
        for at in range(0, len(requests), self.batch_size):
            batch = [request.args for request in requests[at : at + self.batch_size]]
            settings = [dict(options) for _, options in batch]
            if all(options == settings[0] for options in settings):
                texts = self._continue([context for context, _ in batch], settings[0])
            else:
                texts = [self._continue([context], options)[0] for context, options in batch]
            for arguments, text in zip(batch, texts, strict=True):
                self.cache_hook.add_partial("generate_until", arguments, text)
            found += texts
        return found

    def _continue(self, contexts: list[str], options: dict[str, Any]) -> list[str]:
        limit = int(options.get("max_gen_toks", _MAX_NEW_TOKENS))
        until = options.get("until") or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        sampled = options.get("do_sample", options.get("temperature", 0) > 0)
        params = SamplingParams(
            options.get("temperature", 1.0) if sampled else 0.0,
            options.get("top_p", 1.0),
            options.get("top_k"),
        )
        allowed = torch.zeros(self.model.token_embeddings.num_embeddings, dtype=torch.bool)
        allowed[torch.tensor(list(self.tokenizer.vocab))] = True
        sampler = Sampler(params, self._device, allowed)
        room = max(1, self.max_length - limit)
        prompts = [
            (self.tok_encode(context) or [self.prefix_token_id])[-room:] for context in contexts
        ]
        ids: list[list[int]] = [[] for _ in prompts]
        texts, ended = [""] * len(prompts), [False] * len(prompts)
        for step in generate_ids(self.model, prompts, limit, sampler, self.eot_token_id):
            for row, token in enumerate(step):
                if token is None or ended[row]:
                    continue
                ids[row].append(token)
                texts[row], ended[row] = _until(self.tokenizer.decode(ids[row]), stops)
            if all(done or token is None for done, token in zip(ended, step, strict=True)):
                break
        return texts


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """``text`` up to the first of ``stops``, and whether there is one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def main() -> None:
    """The harness's own command; what is wrong with a run is one line, as everywhere here."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except (OSError, ValueError) as error:
        if os.environ.get("CS336LM_TRACEBACK"):
            raise
        sys.exit(f"cs336lm: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
