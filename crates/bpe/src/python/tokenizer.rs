//! The class `_bpe.Tokenizer`: the crate's [`Tokenizer`](crate::encode::encoder::Tokenizer)
//! for Python.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use numpy::{PyArray1, get_array_module};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::arguments::{
    for_each_block, strings, text_bytes, text_of, token_ids, tokens_with_ids, type_name,
};
use super::errors::{guard, to_usage_error};
use super::forks::without_forks;
use super::id_objects::IdObjects;
use super::options::{self, Resources, TextSource, threads_or_all};
use super::stream::EncodeStream;
use super::watch::{WORTH_RELEASING, WORTH_WATCHING, encode_watched, watch};
use crate::encode::encoder::{Tokenizer, useful_threads};
use crate::error::{Error, Result};
use crate::files::tokens::{
    EncodeOptions, EncodeStats, Part, check_output, count_tokens, encode_files, join_files,
};
use crate::formats::{self, Extras, TokenizerParts, checksums};
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;
use crate::train::train;
use crate::vocab::{TokenId, Vocab};
use crate::workers::{self, panic_message};

/// The special token that separates documents in a text file, by convention.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Ids, bytes of text, documents.
type Counts = (u64, u64, u64);

/// (dtype, counts, those of validation, what was skipped).
type Written = (&'static str, Counts, Option<Counts>, Vec<String>);

fn written(stats: EncodeStats) -> Written {
    let counts = |stats: &EncodeStats| (stats.tokens, stats.bytes, stats.documents);
    let val = stats.val.as_deref().map(counts);
    (stats.dtype, counts(&stats), val, stats.skipped)
}

#[pyclass(frozen, name = "Tokenizer", module = "cs336lm._bpe")]
pub struct PyTokenizer {
    core: Arc<Tokenizer>,
    fingerprint: OnceLock<String>,
    integers: IdObjects,
    /// What is kept for saving.
    extras: Extras,
    /// What others make of the files that it was read from.
    notes: Vec<String>,
}

impl From<Tokenizer> for PyTokenizer {
    fn from(tokenizer: Tokenizer) -> Self {
        Self::new_of(tokenizer, Extras::default(), Vec::new())
    }
}

#[pymethods]
impl PyTokenizer {
    #[new]
    #[pyo3(signature = (
        vocab, merges, special_tokens, pattern, whole_words_first=false, extras=None
    ))]
    fn new(
        vocab: &Bound<'_, PyDict>,
        merges: &Bound<'_, PyAny>,
        special_tokens: Vec<(Bound<'_, PyString>, Option<TokenId>)>,
        pattern: &str,
        whole_words_first: bool,
        extras: Option<&str>,
    ) -> PyResult<Self> {
        let tokens = vocab.iter().map(|(id, token)| Ok((vocab_id(&id)?, token_bytes(&token)?)));
        let tokens: Vec<(TokenId, Vec<u8>)> = tokens.collect::<PyResult<_>>()?;
        let merges = merges.try_iter()?.map(|merge| merge_parts(&merge?));
        let merges: Vec<(Vec<u8>, Vec<u8>)> = merges.collect::<PyResult<_>>()?;
        let special_tokens = tokens_with_ids(&special_tokens)?;
        let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
        let extras = extras.map(serde_json::from_str).transpose();
        let extras = extras.map_err(|error| PyValueError::new_err(error.to_string()))?;
        guard(|| {
            let mut vocab = Vocab::new(tokens, merges)?;
            vocab.set_whole_words_first(whole_words_first);
            let mut parts = TokenizerParts::new(vocab, Vec::new(), pattern);
            parts.extras = extras.unwrap_or_default();
            Self::of_parts(parts, &special_tokens)
        })
    }

    /// A watched job: counting and merging take seconds to hours.
    #[staticmethod]
    fn train(
        py: Python<'_>,
        source: TextSource,
        vocab_size: usize,
        special_tokens: Vec<Bound<'_, PyString>>,
        pattern: &str,
        min_count: u64,
        resources: Resources<'_>,
    ) -> PyResult<Self> {
        let special = SpecialTokens::new(&strings(&special_tokens)?).map_err(to_usage_error)?;
        let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
        let (paths, options) = (&source.paths, resources.training(&source, min_count));
        let job = |progress: &Progress| {
            let trained = train(paths, vocab_size, &special, &pattern, &options, progress)?;
            Tokenizer::new(trained.vocab()?, special.tokens(), pattern.clone())
        };
        watch(py, resources.progress.as_ref(), job).map(Self::from)
    }

    /// A watched job: a damaged or a strange file may take long.
    #[staticmethod]
    fn load(
        py: Python<'_>,
        path: PathBuf,
        special_tokens: Vec<(Bound<'_, PyString>, Option<TokenId>)>,
        pattern: Option<&str>,
    ) -> PyResult<Self> {
        let special_tokens = tokens_with_ids(&special_tokens)?;
        let pattern = pattern.map(Pattern::parse).transpose().map_err(to_usage_error)?;
        watch(py, None, |progress: &Progress| {
            let load = || formats::load(&path, pattern.as_ref(), progress);
            Self::of_parts(verified(&[&path], progress, load)?, &special_tokens)
        })
    }

    #[staticmethod]
    fn from_files(
        py: Python<'_>,
        vocab_path: PathBuf,
        merges_path: PathBuf,
        special_tokens: Vec<(Bound<'_, PyString>, Option<TokenId>)>,
        pattern: &str,
    ) -> PyResult<Self> {
        let special_tokens = tokens_with_ids(&special_tokens)?;
        let pattern = Pattern::parse(pattern).map_err(to_usage_error)?;
        let names: Vec<String> = special_tokens.iter().map(|(token, _)| token.clone()).collect();
        watch(py, None, |progress: &Progress| {
            let load = || formats::load_pair(&vocab_path, &merges_path, &names, progress);
            let parts = verified(&[&vocab_path, &merges_path], progress, load)?;
            Self::of_parts(TokenizerParts { pattern, ..parts }, &special_tokens)
        })
    }

    fn save(&self, py: Python<'_>, directory: PathBuf, with_checksums: bool) -> PyResult<()> {
        checksums::check(&directory).map_err(to_usage_error)?;
        let (core, extras) = (&self.core, &self.extras);
        let special_tokens = core.special_tokens().tokens();
        let save = || {
            formats::save(&directory, core.vocab(), special_tokens, core.pattern(), extras)?;
            match with_checksums {
                true => checksums::remember(&directory, &Progress::new()),
                false => Ok(()),
            }
        };
        py.detach(|| guard(save))
    }

    fn encode<'py>(&self, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        self.list_of_ids(text, Tokenizer::encode)
    }

    fn encode_ordinary<'py>(&self, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        self.list_of_ids(text, Tokenizer::encode_ordinary)
    }

    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyArray1<TokenId>>>> {
        if texts.is_instance_of::<PyString>() || texts.is_instance_of::<PyBytes>() {
            return Err(PyTypeError::new_err(
                "a single text is not a batch of texts: put it in a list",
            ));
        }
        let texts = texts.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let texts = texts.iter().map(text_bytes).collect::<PyResult<Vec<_>>>()?;
        let bytes = texts.iter().map(|text| text.len()).sum::<usize>();
        // To ask the system how many cores there are takes as long as to encode some kilobytes.
        let threads = if useful_threads(bytes) == 1 { 1 } else { threads_or_all(threads) };
        let core = &*self.core;
        let encode = |progress: &Progress| core.encode_batch(&texts, threads, progress);
        let batch = match bytes {
            ..WORTH_RELEASING => guard(|| encode(&Progress::new()))?,
            WORTH_RELEASING..WORTH_WATCHING => py.detach(|| guard(|| encode(&Progress::new())))?,
            _ => watch(py, None, encode)?,
        };
        batch.into_iter().map(|ids| array_of(py, ids)).collect()
    }

    fn encode_array<'py>(
        &self,
        text: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<TokenId>>> {
        let (py, bytes) = (text.py(), text_bytes(text)?);
        array_of(py, encode_watched(py, &self.core, bytes, Tokenizer::encode)?)
    }

    /// A watched job. Returns (dtype, (ids, bytes of text, documents), the same of validation, what
    /// was skipped).
    fn encode_files(
        &self,
        py: Python<'_>,
        source: TextSource,
        out: PathBuf,
        options: options::EncodeOptions,
        resources: Resources<'_>,
    ) -> PyResult<Written> {
        let options = self.encode_options(&source, &options, &resources)?;
        let (core, paths) = (&self.core, &source.paths);
        let job = |progress: &Progress| encode_files(core, paths, &out, &options, progress);
        Ok(written(watch(py, resources.progress.as_ref(), job)?))
    }

    /// A watched job: arrays made apart, each with the indices of its files, become those that
    /// `encode_files` writes. Without `parts` it only refuses what would be refused.
    fn join_files(
        &self,
        py: Python<'_>,
        source: TextSource,
        parts: Option<Vec<(PathBuf, Vec<usize>)>>,
        out: PathBuf,
        options: options::EncodeOptions,
        resources: Resources<'_>,
    ) -> PyResult<Option<Written>> {
        let options = self.encode_options(&source, &options, &resources)?;
        let (core, paths) = (&self.core, &source.paths);
        let part = |(array, files)| Part { array, files };
        let parts = parts.map(|parts| parts.into_iter().map(part).collect::<Vec<_>>());
        let job = |progress: &Progress| match &parts {
            Some(parts) => join_files(core, paths, parts, &out, &options, progress).map(Some),
            None => check_output(paths, &out, &options).map(|()| None),
        };
        Ok(watch(py, resources.progress.as_ref(), job)?.map(written))
    }

    /// A watched job. Returns (ids, bytes of text).
    fn count_tokens(
        &self,
        py: Python<'_>,
        source: TextSource,
        resources: Resources<'_>,
    ) -> PyResult<(u64, u64)> {
        let (threads, fields) = (resources.threads(), source.fields());
        let (core, paths) = (&self.core, &source.paths);
        let job = |progress: &Progress| count_tokens(core, paths, &fields, threads, progress);
        watch(py, resources.progress.as_ref(), job)
    }

    fn encode_stream(&self) -> EncodeStream {
        EncodeStream::new(Arc::clone(&self.core))
    }

    fn decode<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        text_of(ids.py(), &self.bytes_of(ids)?)
    }

    fn decode_bytes<'py>(&self, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(ids.py(), &self.bytes_of(ids)?))
    }

    fn vocab<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let vocab = PyDict::new(py);
        for (id, token) in self.core.vocab().tokens() {
            vocab.set_item(id, PyBytes::new(py, token))?;
        }
        Ok(vocab)
    }

    fn merges<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let bytes = |part| PyBytes::new(py, part);
        let merges = self.core.vocab().merge_bytes();
        PyList::new(py, merges.map(|(left, right)| (bytes(left), bytes(right))))
    }

    fn token_to_id(&self, token: &Bound<'_, PyAny>) -> PyResult<Option<TokenId>> {
        Ok(self.core.vocab().id(text_bytes(token)?))
    }

    #[getter]
    fn vocab_size(&self) -> u64 {
        u64::from(self.core.vocab().max_id()) + 1
    }

    #[getter]
    fn special_tokens(&self) -> Vec<String> {
        self.core.special_tokens().tokens().to_vec()
    }

    #[getter]
    fn pattern(&self) -> &str {
        self.core.pattern().name()
    }

    #[getter]
    fn whole_words_first(&self) -> bool {
        self.core.vocab().whole_words_first()
    }

    /// What others make of the files beyond what is done here, a line each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// What is kept for saving, as JSON, for pickles.
    #[getter]
    fn extras(&self) -> PyResult<String> {
        serde_json::to_string(&self.extras)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn fingerprint(&self) -> PyResult<&str> {
        let core = &self.core;
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let special_tokens = core.special_tokens().tokens();
        let fingerprint =
            guard(|| formats::fingerprint(core.vocab(), special_tokens, core.pattern()))?;
        Ok(self.fingerprint.get_or_init(|| fingerprint))
    }
}

impl PyTokenizer {
    /// A tokenizer from its files, with more special tokens.
    fn of_parts(
        mut parts: TokenizerParts,
        special_tokens: &[(String, Option<TokenId>)],
    ) -> Result<Self> {
        parts.add_special_tokens(special_tokens)?;
        let TokenizerParts { vocab, special_tokens, pattern, extras, notes, .. } = parts;
        Ok(Self::new_of(Tokenizer::new(vocab, &special_tokens, pattern)?, extras, notes))
    }

    fn new_of(tokenizer: Tokenizer, extras: Extras, notes: Vec<String>) -> Self {
        let (fingerprint, integers) = (OnceLock::new(), IdObjects::default());
        Self { core: Arc::new(tokenizer), fingerprint, integers, extras, notes }
    }

    /// How files are written, for the core.
    fn encode_options(
        &self,
        source: &TextSource,
        options: &options::EncodeOptions,
        resources: &Resources<'_>,
    ) -> PyResult<EncodeOptions> {
        let separator = self.core.vocab().id(END_OF_TEXT.as_bytes());
        if options.append_eot && separator.is_none() {
            return Err(PyValueError::new_err(format!(
                "append_eot: the tokenizer has no {END_OF_TEXT}; name it as a special token"
            )));
        }
        Ok(EncodeOptions {
            threads: resources.threads(),
            fields: source.fields(),
            append_eot: separator.filter(|_| options.append_eot),
            separator,
            special_in_records: options.special_in_records,
            fingerprint: self.fingerprint()?.to_owned(),
            val_fraction: options.val_fraction,
            seed: options.seed,
            shard_tokens: options.shard_tokens,
            resume: options.resume,
            skip_errors: options.skip_errors,
            range: source.range(),
            documents: options.documents,
            ..EncodeOptions::default()
        })
    }

    fn list_of_ids<'py>(
        &self,
        text: &Bound<'py, PyAny>,
        encode: impl Fn(&Tokenizer, &[u8], &mut Vec<TokenId>) -> Result<()> + Send,
    ) -> PyResult<Bound<'py, PyList>> {
        let (py, bytes) = (text.py(), text_bytes(text)?);
        let ids = encode_watched(py, &self.core, bytes, encode)?;
        self.integers.list(py, &ids, self.core.vocab().max_id())
    }

    fn bytes_of(&self, ids: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        const BYTES_A_TOKEN: usize = 4; // of English
        if let Ok(list) = ids.cast::<PyList>() {
            let mut bytes = Vec::with_capacity(list.len() * BYTES_A_TOKEN);
            let decode = |ids: &[TokenId]| guard(|| self.core.decode(ids, &mut bytes));
            if for_each_block(list, decode).is_ok() {
                return Ok(bytes);
            }
            // The list is decoded again as a whole, so that the error counts from its start.
        }
        let mut bytes = Vec::new();
        let ids = token_ids(ids)?;
        guard(|| self.core.decode(&ids, &mut bytes))?;
        Ok(bytes)
    }
}

/// An array of ids. A short one is copied into memory of NumPy's own, which costs less than an object
/// that keeps ours.
fn array_of(py: Python<'_>, ids: Vec<TokenId>) -> PyResult<Bound<'_, PyArray1<TokenId>>> {
    const SHORT: usize = 2048;
    static IS_READY: AtomicBool = AtomicBool::new(false);
    if !IS_READY.load(Ordering::Acquire) {
        // The first arrays run Python code, which imports NumPy and asks for its version. If that
        // fails (a signal's handler may raise there), making an array would panic.
        without_forks(py, || {
            get_array_module(py)?;
            PyArray1::<TokenId>::from_slice(py, &[]);
            PyArray1::<TokenId>::from_vec(py, Vec::new());
            PyResult::Ok(())
        })?;
        IS_READY.store(true, Ordering::Release);
    }
    Ok(match ids.len() {
        ..SHORT => PyArray1::from_slice(py, &ids),
        _ => PyArray1::from_vec(py, ids),
    })
}

fn vocab_id(id: &Bound<'_, PyAny>) -> PyResult<TokenId> {
    id.extract().map_err(|_| PyValueError::new_err(format!("vocab: {id} is not a token id")))
}

fn token_bytes(token: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match token.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => Err(PyTypeError::new_err(format!(
            "tokens are bytes, not {}: say b\"...\" or text.encode()",
            type_name(token)
        ))),
    }
}

fn merge_parts(merge: &Bound<'_, PyAny>) -> PyResult<(Vec<u8>, Vec<u8>)> {
    let (left, right): (Bound<'_, PyAny>, Bound<'_, PyAny>) = merge
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("a merge is a pair of bytes, not {merge}")))?;
    Ok((token_bytes(&left)?, token_bytes(&right)?))
}

/// What `load` reads, and meanwhile, on another thread, a look at the files' checksums. That they are
/// damaged is said rather than what their content is found to be.
fn verified(
    paths: &[&Path],
    progress: &Progress,
    load: impl FnOnce() -> Result<TokenizerParts>,
) -> Result<TokenizerParts> {
    let verify = || paths.iter().try_for_each(|path| checksums::verify(path, progress).map(drop));
    let (verdict, parts) = thread::scope(|scope| {
        let other = workers::start(scope, 1, verify).pop();
        let parts = load();
        let verdict = other.map_or_else(verify, |thread| {
            thread.join().unwrap_or_else(|panic| Err(Error::invalid(panic_message(&*panic))))
        });
        (verdict, parts)
    });
    verdict.and(parts)
}

/// The files of a tokenizer that were written again since it was saved; None: nothing is known.
#[pyfunction]
pub fn verify_checksums(py: Python<'_>, path: PathBuf) -> PyResult<Option<Vec<&'static str>>> {
    watch(py, None, |progress: &Progress| checksums::verify(&path, progress))
}
