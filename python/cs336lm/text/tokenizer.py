"""The byte-level BPE tokenizer: train it, load it, turn text into ids and ids into text.

The work is done by the Rust crate ``bpe``; here are its names, types and promises.

* **Lossless.** The vocabulary holds every single byte, so any text has ids and
  ``decode_bytes(encode(text))`` is the text's bytes again. Text may be given as ``bytes`` where it
  may be invalid UTF-8.
* **Ids.** A trained tokenizer numbers the 256 bytes first, then the merges in order of creation,
  then the special tokens. A loaded one keeps the ids of its files.
* **Special tokens** (``<|endoftext|>``) are found in the text before anything else, the longest
  first where several match; text beside them is split by ``pattern`` into pretokens (words, more
  or less), and merges never cross a pretoken's edge.

The algorithm is the byte-pair encoding of Sennrich, Haddow and Birch (2016), on bytes as in
GPT-2 (Radford et al., 2019).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from cs336lm import _bpe
from cs336lm.errors import UsageError
from cs336lm.text.options import (
    EncodeOptions,
    Path,
    Progress,
    ReadOptions,
    Resources,
    TrainOptions,
    at_least,
    read_arguments,
    train_arguments,
)

if TYPE_CHECKING:
    import numpy as np
    import tiktoken
    import tokenizers
    from numpy.typing import NDArray

# Larger pieces are encoded in parts of this many characters, so that the ids of one do not pile up.
_STREAM_PART = 1 << 20


SpecialTokens = Iterable[str] | Mapping[str, int | None]
"""Texts that are one token each; in a mapping with their ids (None: the id that it has, or the next
one)."""


class EncodedFile(NamedTuple):
    """What :meth:`Tokenizer.encode_files` has written."""

    tokens: int
    """How many ids."""
    bytes: int
    """How many bytes of text they stand for."""
    documents: int
    """Texts between ``<|endoftext|>`` tokens and files' ends."""
    dtype: str
    """``"uint16"`` if every id of the vocabulary is below 65,536, else ``"uint32"``."""
    path: str
    """The ``.npy`` file; the sidecar beside it has the same stem and ends in ``.json``. Where there
    are shards this is their common name: ``tokens-00000.npy``, ... for ``tokens.npy``."""
    val: EncodedFile | None = None
    """What went to validation, if documents were split: ``tokens.val.npy`` for ``tokens.npy``."""
    skipped: tuple[str, ...] = ()
    """What was left out, and why."""


def encoded_file(written: _bpe.Written, out: Path) -> EncodedFile:
    """What the core says that it has written to ``out``."""
    dtype, counts, val_counts, skipped = written
    path = os.fspath(out)
    val_path = path.removesuffix(".npy") + ".val.npy"
    val = None if val_counts is None else EncodedFile(*val_counts, dtype, val_path)
    return EncodedFile(*counts, dtype, path, val, tuple(skipped))


class Tokenizer:
    """A byte-level BPE tokenizer.

    Args:
        vocab: id -> bytes. Ids may have gaps; all 256 single bytes must be there.
        merges: (left, right) in the order in which they apply; parts and results must be in
            ``vocab``.
        special_tokens: texts that are one token each. Those that are not in ``vocab`` get the ids
            after its largest, in the order given, or the ids that a mapping gives them
            (``{"<|x|>": 100300}``).
        pattern: how text is split into pretokens: ``"gpt2"``, ``"gpt4"`` (cl100k_base),
            ``"gpt4o"`` (o200k_base), ``"llama3"``, ``"qwen2"``, ``"qwen3.5"``, ``"nanochat"``,
            ``"tekken"`` (Mistral), ``"starcoder"``, or a regular expression; one that spells one of
            these is that pattern. Those with a name are fast. Several expressions with
            ``(?#then)`` between them cut one after the other.

    Raises:
        ValueError: the vocabulary, the merges, a special token or the pattern is invalid; the
            message names the entry.

    Tokenizers are immutable, may be used from several threads at once, compare equal when they
    give every text the same ids, and can be pickled (for data loaders and process pools).

    Examples:
        Nothing but the bytes, one merge, and a special token:

        >>> vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"lo"}
        >>> tokenizer = Tokenizer(vocab, [(b"l", b"o")], ["<|endoftext|>"])
        >>> tokenizer.encode("slow<|endoftext|>")
        [115, 256, 119, 257]
        >>> tokenizer.decode([115, 256, 119, 257])
        'slow<|endoftext|>'
        >>> list(tokenizer.encode_iterable(["sl", "ow"]))
        [115, 256, 119]
    """

    __slots__ = ("_core", "_merges", "_vocab")

    def __init__(
        self,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: SpecialTokens | None = None,
        *,
        pattern: str = "gpt2",
    ) -> None:
        self._adopt(_bpe.Tokenizer(vocab, merges, _with_ids(special_tokens), pattern))

    def _adopt(self, core: _bpe.Tokenizer) -> None:
        self._core = core
        self._vocab: dict[int, bytes] | None = None
        self._merges: list[tuple[bytes, bytes]] | None = None

    @classmethod
    def _of(cls, core: _bpe.Tokenizer) -> Self:
        tokenizer = cls.__new__(cls)
        tokenizer._adopt(core)
        return tokenizer

    @classmethod
    def train(
        cls,
        input_path: Path | Iterable[Path],
        vocab_size: int,
        special_tokens: Iterable[str] = (),
        *,
        pattern: str = "gpt2",
        min_count: int = 1,
        **options: Unpack[TrainOptions],
    ) -> Tokenizer:
        """Trains a tokenizer on text files.

        The arguments are those of :func:`~cs336lm.text.training.train_bpe`; the result is a
        tokenizer.
        """
        names = special_token_list(special_tokens)
        smallest = 256 + len(names)
        if vocab_size < smallest:
            raise UsageError(
                f"vocab_size {vocab_size} is too small: the bytes and {len(names)} special "
                f"token(s) alone are {smallest}"
            )
        source, resources = train_arguments(input_path, **options)
        core = _bpe.Tokenizer.train(
            source, vocab_size, names, pattern, at_least("min_count", min_count), resources
        )
        return cls._trained(core, vocab_size)

    @classmethod
    def train_counts(
        cls,
        counts_path: Path | Iterable[Path],
        vocab_size: int,
        *,
        min_count: int = 1,
        max_memory: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Tokenizer:
        """Trains on counts files: the tokenizer that :meth:`train` makes of all their texts.

        Args:
            counts_path: one file or several, made by
                :func:`~cs336lm.text.training.count_pretokens`.
            vocab_size, min_count, max_memory, threads, progress: as for :meth:`train`.

        Raises:
            OSError: a file cannot be read.
            UsageError: no file is named, or a number is below 1.
            ValueError: a file is not a counts file or is corrupt, files were counted with different
                patterns or special tokens, or ``vocab_size`` is too small for these.
        """
        resources = Resources(threads, max_memory, progress)
        core = _bpe.train_counts(
            _paths(counts_path), vocab_size, at_least("min_count", min_count), resources
        )
        return cls._trained(core, vocab_size)

    @classmethod
    def _trained(cls, core: _bpe.Tokenizer, vocab_size: int) -> Tokenizer:
        if core.vocab_size < vocab_size:
            warnings.warn(
                f"the text holds no more pairs to merge: vocab_size is {core.vocab_size}, "
                f"not {vocab_size}",
                stacklevel=3,
            )
        return cls._of(core)

    @classmethod
    def from_files(
        cls,
        vocab_filepath: Path,
        merges_filepath: Path,
        special_tokens: SpecialTokens | None = None,
        *,
        pattern: str = "gpt2",
    ) -> Tokenizer:
        """Reads a ``vocab.json`` and a ``merges.txt`` (GPT-2's formats).

        These formats do not say the pattern, nor which tokens are special: those that no merge
        makes are, beside the ones that are named. (:meth:`load` also reads what Hugging Face's
        library writes beside them.)

        Raises:
            OSError: a file cannot be read.
            ValueError: a file holds something that it should not.
        """
        special = _with_ids(special_tokens)
        return cls._of(_bpe.Tokenizer.from_files(vocab_filepath, merges_filepath, special, pattern))

    @classmethod
    def load(
        cls,
        path: Path,
        special_tokens: SpecialTokens | None = None,
        *,
        pattern: str | None = None,
    ) -> Self:
        """Reads a tokenizer from a directory or any of its files.

        Args:
            path: a directory with a ``tokenizer.json``, or with ``vocab.json`` and ``merges.txt``
                (and, if they are there, ``added_tokens.json``, ``tokenizer_config.json`` and
                ``special_tokens_map.json``); one of these files; or a ``.tiktoken`` file.
            special_tokens: special tokens beside those that the files name; a mapping gives them
                ids. Those of ``cl100k_base``, ``o200k_base``, ``p50k_base``, ``r50k_base`` and
                ``gpt2`` (``.tiktoken``) have the ids of tiktoken by themselves; others get the
                ids after the largest one.
            pattern: instead of the files' own. ``vocab.json`` names none: it is ``"gpt2"`` if
                nothing is said. Nor does a ``.tiktoken`` file: beside those named above, it must
                be said.

        What ``tokenizer.json`` puts around texts (a token at their beginning) or cuts off them is
        no part of a text's ids here: a warning names it, and :meth:`save` keeps it. What would
        give other ids than Hugging Face's library in any other way is refused.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file holds something that it should not, or that is not supported; or it
                is damaged, by the checksums that :meth:`save` left beside it.
            KeyboardInterrupt: Ctrl-C.
        """
        core = _bpe.Tokenizer.load(path, _with_ids(special_tokens), pattern)
        for note in core.notes:
            warnings.warn(note, stacklevel=2)
        return cls._of(core)

    def save(self, directory: Path, *, with_checksums: bool = True) -> None:
        """Writes ``tokenizer.json``, ``vocab.json`` and ``merges.txt`` into ``directory``.

        The directory is made if it is not there. ``tokenizer.json`` is Hugging Face's format and
        opens in ``tokenizers`` and, with the small ``tokenizer_config.json`` beside it, in
        ``transformers``. Each file appears whole or not at all. ``with_checksums`` writes
        ``checksums.json`` as well, by which :meth:`load` notices damage.

        Raises:
            OSError: a file cannot be written.
            ValueError: the files could not tell a special token from another token, or their
                regular expressions (Oniguruma's) cannot say what ``pattern`` does.
        """
        self._core.save(directory, with_checksums)

    def to_tiktoken(self, name: str = "cs336lm") -> tiktoken.Encoding:
        """The same tokenizer as a ``tiktoken.Encoding`` of this name.

        Raises ``ValueError`` if its merges do not follow from its ids, by which tiktoken merges,
        or if one special token begins with another. (``disallowed_special=()`` there is
        :meth:`encode_ordinary` here.)
        """
        from cs336lm.text.conversions import to_tiktoken

        return to_tiktoken(self, name)

    @classmethod
    def from_tiktoken(cls, encoding: tiktoken.Encoding) -> Self:
        """The tokenizer that a ``tiktoken.Encoding`` is, special tokens and pattern included.

        Raises ``ValueError`` if its pattern or a token is invalid.
        """
        from cs336lm.text.conversions import from_tiktoken

        return from_tiktoken(cls.load, encoding)

    def to_hf(self) -> tokenizers.Tokenizer:
        """The same tokenizer as an object of Hugging Face's ``tokenizers``.

        ``transformers.PreTrainedTokenizerFast(tokenizer_object=...)`` takes it. A regular
        expression of your own is in Oniguruma's dialect there. Raises ``ValueError`` as
        :meth:`save` does.
        """
        from cs336lm.text.conversions import to_hugging_face

        return to_hugging_face(self)

    @classmethod
    def from_hf(cls, tokenizer: Any) -> Self:
        """The tokenizer that a ``tokenizers.Tokenizer``, or a fast one of transformers, is.

        Raises ``ValueError``, and warns, as :meth:`load` does for a ``tokenizer.json``.
        """
        from cs336lm.text.conversions import from_hugging_face

        return from_hugging_face(cls.load, tokenizer)

    def encode(self, text: str | bytes) -> list[int]:
        """The ids of ``text``; special tokens in it become their own ids.

        Raises:
            ValueError: ``text`` is a ``str`` with a lone surrogate, which no bytes stand for.
        """
        return self._core.encode(text)

    def encode_ordinary(self, text: str | bytes) -> list[int]:
        """The ids of ``text`` with special tokens taken for plain text: for untrusted input.

        Raises:
            ValueError: as :meth:`encode`.
        """
        return self._core.encode_ordinary(text)

    def encode_array(self, text: str | bytes) -> NDArray[np.uint32]:
        """``encode`` into a one-dimensional uint32 array, whatever the vocabulary's size.

        Raises:
            ValueError: as :meth:`encode`.
        """
        return self._core.encode_array(text)

    def encode_batch(
        self, texts: Sequence[str | bytes], *, threads: int | None = None
    ) -> list[NDArray[np.uint32]]:
        """``encode`` of each text, over all cores.

        Args:
            texts: any number of texts.
            threads: how many to use at most, all cores if nothing is said. Each has at least 128
                KiB of text, since short texts take less time than starting a thread.

        Returns:
            For each text a one-dimensional uint32 array, whatever the vocabulary's size.

        Raises:
            ValueError: as :meth:`encode`, for the first such text; the others are left.
            KeyboardInterrupt: Ctrl-C.
        """
        return self._core.encode_batch(texts, at_least("threads", threads))

    def encode_iterable(self, iterable: Iterable[str] | Iterable[bytes]) -> Iterator[int]:
        """The ids of the pieces joined, lazily: a text in any number of pieces, cut anywhere.

        ``list(encode_iterable(pieces)) == encode("".join(pieces))``. What is held in memory is
        a piece and the text that cannot be cut yet, never the whole. An open text file is an
        iterable of its lines; pieces of ``bytes`` may be cut inside a character.
        """
        stream = self.encode_stream()
        for piece in iterable:
            for start in range(0, len(piece), _STREAM_PART):
                yield from stream.push(piece[start : start + _STREAM_PART])
        yield from stream.finish()

    def encode_stream(self) -> _bpe.EncodeStream:
        """``encode`` for text that comes in pieces, by hand.

        ``push(piece)`` returns the ids that are certain by then, ``finish()`` the rest; joined
        they are those of the whole text. :meth:`encode_iterable` is this as a loop.
        """
        return self._core.encode_stream()

    def encode_files(
        self,
        paths: Path | Iterable[Path],
        out: Path,
        *,
        append_eot: bool = False,
        val_fraction: float = 0.0,
        seed: int = 0,
        shard_tokens: int | None = None,
        resume: bool = False,
        skip_errors: bool = False,
        special_tokens_in_records: bool = False,
        **options: Unpack[ReadOptions],
    ) -> EncodedFile:
        """Encodes text files, one after the other, into one ``.npy`` file.

        ``out`` is a one-dimensional array of uint16, or of uint32 if an id of the vocabulary needs
        it: open it with ``np.load(out, mmap_mode="r")``. Beside it a sidecar (``tokens.json`` for
        ``tokens.npy``) names the tokenizer's fingerprint, the counts and the inputs. The ids are
        those of :meth:`encode` of each file's whole content, or of each record of ``.jsonl`` and
        ``.parquet`` files, for any number of threads; memory does not grow with the files. Both
        files appear whole or not at all; an empty text gives an array of length 0.

        Args:
            paths: one file or several, directories, patterns, or ``-``, as for
                :func:`~cs336lm.text.training.train_bpe`.
                No token reaches from one file or record into the next.
            out: the file to write; its name ends in ``.npy``.
            append_eot: put ``<|endoftext|>`` after each record, and after each file of plain text
                that is not empty.
            val_fraction: how much of all documents goes to a second file, ``tokens.val.npy`` for
                ``tokens.npy``. A document ends at ``<|endoftext|>``, with its record, and with its
                file. Which ones are chosen depends on ``seed`` and their number alone.
            seed: chooses the documents of ``val_fraction``.
            shard_tokens: write files of this many ids each (``tokens-00000.npy``, ...) instead of
                one; the sidecar lists them, and ``TokenDataset`` opens them as one.
            resume: go on after the last finished shard of a job that was interrupted, if there was
                one; only with ``shard_tokens``. What is written is what an uninterrupted job
                writes. What is encoded is not read again, unless it is compressed: then it must be
                unpacked to be passed over.
            skip_errors: leave out files, rest of files and records that cannot be read and texts
                that cannot be encoded (only a regular expression of your own can give up), and say
                so in ``skipped`` and in the sidecar, rather than raise.
            special_tokens_in_records: read special tokens in records too. Without this the text of
                a record is plain text, as for :meth:`encode_ordinary`: whoever wrote it cannot
                forge the end of a document.
            text_field, text_column, threads, progress: see
                :class:`~cs336lm.text.options.ReadOptions`; the phase is ``"encoding"``.

        Raises:
            OSError: a file cannot be read or written.
            UsageError: no file is named, or a number is below what it can be.
            ValueError: an argument is invalid, a record has no text, or the job to resume was
                another one.
            KeyboardInterrupt: Ctrl-C; nothing but finished shards is left behind.
        """
        source, resources = read_arguments(paths, **options)
        encode = EncodeOptions(
            append_eot,
            val_fraction,
            seed,
            shard_tokens,
            resume,
            skip_errors,
            special_in_records=special_tokens_in_records,
        )
        return encoded_file(self._core.encode_files(source, out, encode, resources), out)

    def count_tokens(
        self, paths: Path | Iterable[Path], **options: Unpack[ReadOptions]
    ) -> tuple[int, int]:
        """How many ids :meth:`encode_files` would write by default, and of how many bytes of text.

        Args:
            paths, text_field, text_column, threads, progress: as for :meth:`encode_files`.
        """
        return self._core.count_tokens(*read_arguments(paths, **options))

    def decode(self, ids: Iterable[int] | NDArray[np.integer[Any]]) -> str:
        """The text of ``ids``; bytes that are not UTF-8 (ids cut inside a character) become U+FFFD.

        Args:
            ids: a list, any other iterable of ints, a one-dimensional NumPy array or a tensor.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        return self._core.decode(ids)

    def decode_bytes(self, ids: Iterable[int] | NDArray[np.integer[Any]]) -> bytes:
        """The bytes of ``ids``: exactly what was encoded.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        return self._core.decode_bytes(ids)

    def token_to_id(self, token: str | bytes) -> int | None:
        """The id of one token, special or not; None if there is no such token."""
        return self._core.token_to_id(token)

    @property
    def vocab(self) -> dict[int, bytes]:
        """Id -> bytes, special tokens included. Made when first asked for; not to be changed."""
        if self._vocab is None:
            self._vocab = self._core.vocab()
        return self._vocab

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """(left, right) in the order in which they apply; not to be changed."""
        if self._merges is None:
            self._merges = self._core.merges()
        return self._merges

    @property
    def vocab_size(self) -> int:
        """The largest id plus one: the rows that an embedding needs.

        It is ``len(vocab)`` unless a loaded vocabulary has gaps.
        """
        return self._core.vocab_size

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens in the order given."""
        return self._core.special_tokens

    @property
    def pattern(self) -> str:
        """The pattern's name (``"gpt2"``, ``"llama3"``, ...), or the regular expression."""
        return self._core.pattern

    @property
    def whole_words_first(self) -> bool:
        """Whether a word that is a token is that token, whatever the merges would make of it.

        So it is in tiktoken, and in ``tokenizers`` with ``ignore_merges``.
        """
        return self._core.whole_words_first

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of all that decides about ids: vocabulary, merges, pattern.

        Token files carry it, so that nobody decodes them with another tokenizer.
        """
        return self._core.fingerprint

    def __len__(self) -> int:
        return self.vocab_size

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        core = self._core
        special = [(token, None) for token in core.special_tokens]
        parts = (core.vocab(), core.merges(), special, core.pattern)
        return _unpickle, (type(self), *parts, core.whole_words_first, core.extras)

    def __repr__(self) -> str:
        special = ", ".join(map(repr, self.special_tokens))
        return (
            f"Tokenizer(vocab_size={self.vocab_size}, special_tokens=[{special}], "
            f"pattern={self.pattern!r})"
        )


def _unpickle(cls: type[Tokenizer], *parts: Any) -> Tokenizer:
    return cls._of(_bpe.Tokenizer(*parts))


def _paths(paths: Path | Iterable[Path]) -> list[Path]:
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not several:
        raise UsageError("no files given: name at least one")
    return several


def special_token_list(texts: Iterable[str] | None) -> list[str]:
    """Special tokens as training takes them; one string is not several of one character."""
    if isinstance(texts, str):
        raise TypeError(f"special_tokens is a list of strings, not one string ({texts!r})")
    if isinstance(texts, Mapping):
        raise TypeError("special_tokens is a list of strings: training numbers them by itself")
    return list(texts or ())


def _with_ids(tokens: SpecialTokens | None) -> list[tuple[str, int | None]]:
    """Special tokens as the core takes them, each with its id if one is said."""
    if isinstance(tokens, Mapping):
        return list(tokens.items())
    return [(token, None) for token in special_token_list(tokens)]
